"""Answers the requests for one model: takes what waits, up to a batch, and has the engine run it ahead of jobs.

    stream → payloads → decode ‖ forward → rows → reply

A thread takes and submits, another replies. As many groups are under way as the engine has lanes, and one more: a
request waits in Redis, where any worker may take it, rather than here.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from contract.errors import DeviceOutOfMemory, ImagemillError, InferenceFailed, WorkerUnfit
from contract.instruments import ONLINE_REQUESTS, ONLINE_SECONDS
from contract.models.registry import Model
from contract.online.connection import LOST
from contract.online.frames import MalformedFrameError
from contract.online.messages import Classify, Reply, read_request, write_reply
from contract.online.state import WorkerSays
from worker.engine import canary
from worker.engine.pipeline import Encoded, Failed, Result
from worker.engine.types import PromptRuntime
from worker.execution.model_cache import Loaded
from worker.execution.resources import Resources
from worker.process.serving.inbox import Inbox, Taken
from worker.process.serving.pace import Pace
from worker.process.serving.rows import rows_of

log = logging.getLogger(__name__)

_GROUP = 32
"""Requests taken at once, at most; a device that runs more gets them from several groups."""
_GROUP_BYTES = 32 * 2**20
"""Payloads of a group. They are outside of the budget of memory, behind which a job's files may wait."""
_WAIT_MS = 500
_PAUSE_SECONDS = 0.2
_DIED = 2
"""Processes that may end or fall silent with a request before it is given up."""


@dataclass(frozen=True)
class _Asked:
    """A request that runs."""

    taken: Taken
    request: Classify
    images: list[bytes]
    waited_ms: float
    """From its admission until now, at `since`."""
    since: float


class Counter:
    """Serves one model in this process, between `start` and `stop`."""

    def __init__(self, resources: Resources, inbox: Inbox, model: Model, loaded: Loaded) -> None:
        self._resources, self._inbox, self._model, self._loaded = resources, inbox, model, loaded
        self._stop = threading.Event()
        self._most = min(loaded.runtime.batch_size, _GROUP)
        self._lanes = loaded.runtime.lanes + 1
        self._free = threading.Semaphore(self._lanes)
        self._done: queue.SimpleQueue[tuple[list[_Asked], Future[list[Result]]] | None] = queue.SimpleQueue()
        self._claimed: queue.SimpleQueue[Taken] = queue.SimpleQueue()
        self._groups: deque[list[Taken]] = deque()
        """Requests that were taken and have not begun."""
        self.pace = Pace(self._warm_up())
        self._threads = [
            threading.Thread(target=work, name=f"serving-{model.ref}", daemon=True)
            for work in (self._take, self._reply)
        ]

    @property
    def takes(self) -> bool:
        """Whether requests are taken."""
        resources = self._resources
        return not (self._stop.is_set() or resources.leaving.is_set() or resources.health.unfit)

    def start(self) -> None:
        """Take requests from now on."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take nothing more; return at once."""
        self._stop.set()

    def stop(self, seconds: float) -> None:
        """Take nothing more, and wait until what was taken has its reply, or for so many seconds."""
        self.close()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def beat(self) -> None:
        """Say that this process is there, and take over what silent ones hold."""
        lately, p50, p99 = self.pace.look()
        self._inbox.say(
            WorkerSays(
                at_ms=self._inbox.living()[0],
                rate=round(self.pace.rate, 3) if self.takes else 0.0,
                worker=self._resources.name,
                images_per_second=lately,
                p50_ms=p50,
                p99_ms=p99,
            )
        )
        if self.takes:
            for taken in self._inbox.claim():
                log.warning("A request for %s is taken over from a worker that is silent", self._model.ref)
                self._claimed.put(taken)

    def _warm_up(self) -> float:
        """Make small batches ready, and return images per second of known good images."""
        if isinstance(self._loaded.runtime, PromptRuntime):
            self._loaded.runtime.prepare()
        items = self._good() * (4 * self._loaded.runtime.lanes)
        self._loaded.engine.submit(items[:2], first=True).result()
        began = time.perf_counter()
        self._loaded.engine.submit(items, first=True).result()
        return len(items) / (time.perf_counter() - began)

    def _good(self) -> list[Encoded]:
        return canary.items(self._model.frames)

    # Taking

    def _take(self) -> None:
        while self._groups or not self._stop.is_set():
            if not (self._groups or self.takes):  # unfit, or about to leave
                self._stop.wait(_PAUSE_SECONDS)
                continue
            if not self._free.acquire(timeout=_PAUSE_SECONDS):
                continue
            begun, group = False, list[Taken]()
            try:
                group = self._next()
                begun = self._begin(group)
            except LOST as error:
                log.info("Requests for %s wait: %s", self._model.ref, error)
                self._inbox.lose(group)
                self._stop.wait(_PAUSE_SECONDS)
            except Exception:
                log.exception("Requests for %s cannot be taken", self._model.ref)
                self._stop.wait(_PAUSE_SECONDS)
            finally:
                if not begun:
                    self._free.release()
        for _ in range(self._lanes):  # what was taken has its reply
            self._free.acquire()
        self._done.put(None)

    def _next(self) -> list[Taken]:
        """Return requests that run together; there may be none."""
        if not self._groups:
            with suppress(queue.Empty):
                return [self._claimed.get_nowait()]  # alone: it may have ended a process
            taken = self._inbox.take(self._most, _WAIT_MS)
            if len(taken) < self._most:
                self.pace.starved()
            self._groups.extend(_grouped(taken))
        return self._groups.popleft() if self._groups else []

    def _begin(self, group: list[Taken]) -> bool:
        """Have the engine run requests; return whether any of them runs."""
        asked = self._open(group) if group else []
        if asked:
            self._submit(asked)
        return bool(asked)

    def _open(self, group: list[Taken]) -> list[_Asked]:
        """Read what these requests ask for; those that are expired, malformed or fatal end here."""
        with ONLINE_SECONDS.seconds("fetch"):
            now_ms, payloads = self._inbox.payloads(group)
        since = time.monotonic()
        asked = []
        for taken, payload in zip(group, payloads, strict=True):
            waited = now_ms - taken.asked_ms
            if payload is None:
                self._drop(taken, "expired")
                continue
            try:
                request, images = read_request(payload)
            except MalformedFrameError as error:
                log.warning("A request for %s is dropped: %s", self._model.ref, error)
                self._drop(taken, "malformed")
                continue
            if not isinstance(request, Classify):
                self._answer(taken, request.reply_to, _refused(taken, f"{self._model.ref} generates no images."))
            elif taken.deliveries > _DIED:
                why = f"{_DIED} workers ended or fell silent while they had the request; it is not tried again."
                self._answer(taken, request.reply_to, _failed(taken, why))
            else:
                ONLINE_SECONDS.observe(max(0.0, waited) / 1000, "wait")
                asked.append(_Asked(taken, request, images, waited, since))
        return asked

    def _submit(self, asked: list[_Asked]) -> None:
        items: list[Encoded] = [image for one in asked for image in one.images]
        future = self._loaded.engine.submit(
            items,
            top_k=max(one.request.top_k for one in asked),
            features=any(one.request.embed for one in asked),
            first=True,
        )
        future.add_done_callback(lambda done: self._done.put((asked, done)))

    # Replying

    def _reply(self) -> None:
        while (found := self._done.get()) is not None:
            asked, future = found
            try:
                self._give_back(asked, future)
            except LOST as error:
                log.info("Replies of %s wait: %s", self._model.ref, error)
                self._inbox.lose([one.taken for one in asked])
            except Exception:
                log.exception("A request for %s has no reply", self._model.ref)
            finally:
                self._free.release()

    def _give_back(self, asked: list[_Asked], future: Future[list[Result]]) -> None:
        error = future.exception()
        if error is not None:
            self._suspect(asked, error)
            return
        results = iter(future.result())
        for one in asked:
            seconds = time.monotonic() - one.since
            ONLINE_SECONDS.observe(seconds, "compute")
            rows = rows_of(self._model, one.request, [next(results) for _ in one.images])
            self._answer(one.taken, one.request.reply_to, Reply(id=str(one.taken.id), outcome="done", rows=rows))
            self.pace.done(len(one.images), one.waited_ms + 1000 * (time.monotonic() - one.since))

    def _suspect(self, asked: list[_Asked], error: BaseException) -> None:
        """Find out whether the device or a request is at fault: each is run alone, beside a known good image."""
        log.error("Requests for %s raised; each is tried alone", self._model.ref, exc_info=error)
        for place, one in enumerate(asked):
            results: list[Result] = []
            try:
                results = self._alone(one, one.images)
            except Exception as again:
                if self._sick():
                    for left in asked[place:]:
                        self._inbox.hand_over(left.taken)
                    return
                self._fault(one, again)
                continue
            rows = rows_of(self._model, one.request, results)
            self._answer(one.taken, one.request.reply_to, Reply(id=str(one.taken.id), outcome="done", rows=rows))

    def _alone(self, one: _Asked, images: list[bytes]) -> list[Result]:
        items: list[Encoded] = list(images)
        return self._loaded.engine.submit(
            items, top_k=one.request.top_k, features=one.request.embed, first=True
        ).result()

    def _sick(self) -> bool:
        """Return whether a known good image fails here too; a process that is unfit leaves."""
        health = self._resources.health
        try:
            canary.check(self._loaded.engine, frames=self._model.frames)
            health.check()
        except Exception as error:
            log.critical("%s fails on a known good image here: %s", self._model.ref, error)
            if not isinstance(error, WorkerUnfit):
                with suppress(WorkerUnfit):
                    health.check()
            if health.unfit:
                health.leave(health.unfit)
            return True
        return False

    def _fault(self, one: _Asked, error: Exception) -> None:
        """Pass a request on that raised alone beside a good image; two processes are proof against an image."""
        if isinstance(error, DeviceOutOfMemory):
            self._answer(one.taken, one.request.reply_to, _failed(one.taken, str(error)))
            return
        others = self._inbox.faults(one.taken)
        if not others:
            _, living = self._inbox.living()
            if any(says.rate > 0 and says.worker != self._resources.name for says in living.values()):
                self._inbox.pass_on(one.taken)
                ONLINE_REQUESTS.add(1, "passed_on")
                return
            why = f"The model raised on it ({_said(error)}), and no other worker is there to try; try again later."
            self._answer(one.taken, one.request.reply_to, _failed(one.taken, why))
            return
        results: list[Result] = []
        for image in one.images:
            try:
                results += self._alone(one, [image])
            except Exception as raised:
                why = (
                    f"Alone, the image failed in {others + 1} processes that labelled a known good image "
                    f"({_said(raised)}); look at the file."
                )
                results.append(Failed(InferenceFailed(why), None))
        rows = rows_of(self._model, one.request, results)
        self._answer(one.taken, one.request.reply_to, Reply(id=str(one.taken.id), outcome="done", rows=rows))

    def _answer(self, taken: Taken, asker: str, reply: Reply) -> None:
        with ONLINE_SECONDS.seconds("reply"):
            first = self._inbox.reply(taken, asker, write_reply(reply))
        ONLINE_REQUESTS.add(1, reply.outcome if first else "overtaken")

    def _drop(self, taken: Taken, outcome: str) -> None:
        self._inbox.drop(taken)
        ONLINE_REQUESTS.add(1, outcome)


def _grouped(taken: Sequence[Taken]) -> list[list[Taken]]:
    """Return requests in groups of at most `_GROUP_BYTES`, in their order."""
    groups: list[list[Taken]] = []
    room = 0
    for one in taken:
        if one.id.size > room:
            groups.append([])
            room = _GROUP_BYTES
        groups[-1].append(one)
        room -= one.id.size
    return groups


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300] if not isinstance(error, ImagemillError) else str(error)


def _failed(taken: Taken, why: str) -> Reply:
    return Reply(id=str(taken.id), outcome="failed", says=why)


def _refused(taken: Taken, why: str) -> Reply:
    return Reply(id=str(taken.id), outcome="refused", says=why)
