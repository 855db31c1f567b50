"""Answers the requests for one model: takes what waits, up to a batch, and has the model run it ahead of jobs.

    stream → payloads → what the model does → rows, files → reply

A thread takes and submits, another replies. As few groups are under way as keep the device busy: a request waits in
Redis, where any worker may take it, rather than here.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress

from contract.instruments import ONLINE_REQUESTS, ONLINE_SECONDS
from contract.online.connection import LOST
from contract.online.frames import MalformedFrameError
from contract.online.messages import Reply, read_request, write_reply
from contract.online.state import WorkerSays
from worker.execution.resources import Resources
from worker.process.serving.inbox import Inbox, Taken
from worker.process.serving.pace import Pace
from worker.process.serving.verdict import Verdict
from worker.process.serving.work import Answer, Asked, Work

log = logging.getLogger(__name__)

_GROUP_BYTES = 32 * 2**20
"""Payloads of a group. They are outside of the budget of memory, behind which a job's files may wait."""
_REPLY_BYTES = 2**20
"""Replies of a group are sent together up to so many bytes: rows are, and files of images in parts."""
_WAIT_MS = 500
_PAUSE_SECONDS = 0.2
_DIED = 2
"""Processes that may end or fall silent with a request before it is given up."""


class Counter:
    """Serves one model in this process, between `start` and `stop`."""

    def __init__(self, resources: Resources, inbox: Inbox, work: Work) -> None:
        """Warm the model up; raises what fails."""
        self._resources, self._inbox, self._work = resources, inbox, work
        self._ref = work.model.ref
        self._verdict = Verdict(resources, inbox, work, answer=self._answer, fail=self._fail)
        self._stop = threading.Event()
        self._free = threading.Semaphore(work.lanes)
        self._begun, self._ended = 0, 0
        """Groups; each number has one thread that counts."""
        self._done: queue.SimpleQueue[tuple[list[Asked], Future[Iterator[Answer]]] | None] = queue.SimpleQueue()
        self._claimed: queue.SimpleQueue[Taken] = queue.SimpleQueue()
        self._groups: deque[list[Taken]] = deque()
        """Requests that were taken and have not begun."""
        self.pace = Pace(work.warm_up())
        self._threads = [
            threading.Thread(target=loop, name=f"serving-{self._ref}", daemon=True)
            for loop in (self._take, self._reply)
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
                log.warning("A request for %s is taken over from a worker that is silent", self._ref)
                self._claimed.put(taken)

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
                log.info("Requests for %s wait: %s", self._ref, error)
                self._inbox.lose(group)
                self._stop.wait(_PAUSE_SECONDS)
            except Exception:
                log.exception("Requests for %s cannot be taken", self._ref)
                self._stop.wait(_PAUSE_SECONDS)
            finally:
                self._begun += begun
                if not begun:
                    self._free.release()
        for _ in range(self._work.lanes):  # what was taken has its reply
            self._free.acquire()
        self._done.put(None)

    def _next(self) -> list[Taken]:
        """Return requests that run together; there may be none."""
        if not self._groups:
            with suppress(queue.Empty):
                return [self._claimed.get_nowait()]  # alone: it may have ended a process
            taken = self._inbox.take(self._work.takes, _WAIT_MS)
            if not self._work.full([one.id.images for one in taken]):
                self.pace.starved()
            for some in self._spread(taken):
                self._groups.extend(_grouped(some, self._work.images))
        return self._groups.popleft() if self._groups else []

    def _spread(self, taken: list[Taken]) -> Iterator[list[Taken]]:
        """Yield requests in parts for the lanes that are free."""
        free = self._work.lanes - (self._begun - self._ended)
        size = max(self._work.least, -(-len(taken) // free))
        for start in range(0, len(taken), size):
            yield taken[start : start + size]

    def _begin(self, group: list[Taken]) -> bool:
        """Have the model run requests; return whether any of them runs."""
        asked = self._open(group) if group else []
        if asked:
            self._work.submit(asked).add_done_callback(lambda done: self._done.put((asked, done)))
        return bool(asked)

    def _open(self, group: list[Taken]) -> list[Asked]:
        """Read what these requests ask for; those that are expired, malformed or fatal end here."""
        with ONLINE_SECONDS.seconds("fetch"):
            now_ms, payloads = self._inbox.payloads(group)
        since = time.monotonic()
        asked = []
        for taken, payload in zip(group, payloads, strict=True):
            if payload is None:
                self._drop(taken, "expired")
                continue
            try:
                request, images = read_request(payload)
            except MalformedFrameError as error:
                log.warning("A request for %s is dropped: %s", self._ref, error)
                self._drop(taken, "malformed")
                continue
            one = Asked(taken, request, images, now_ms - taken.asked_ms, since)
            if why := self._work.refuse(request):
                self._send([(one, write_reply(Reply(id=str(taken.id), outcome="refused", says=why)))], "refused")
            elif taken.deliveries > _DIED:
                self._fail(
                    one, f"{_DIED} workers ended or fell silent while they had the request; it is not tried again."
                )
            else:
                ONLINE_SECONDS.observe(max(0.0, one.waited_ms) / 1000, "wait")
                asked.append(one)
        return asked

    # Replying

    def _reply(self) -> None:
        while (found := self._done.get()) is not None:
            asked, future = found
            try:
                self._give_back(asked, future)
            except LOST as error:
                log.info("Replies of %s wait: %s", self._ref, error)
                self._inbox.lose([one.taken for one in asked])
            except Exception:
                log.exception("A request for %s has no reply", self._ref)
            finally:
                self._ended += 1
                self._free.release()

    def _give_back(self, asked: list[Asked], future: Future[Iterator[Answer]]) -> None:
        error = future.exception()
        if error is not None:
            self._verdict.of(asked, error)
            return
        for part in _parts(zip(asked, future.result(), strict=True)):
            self._send([(one, data) for one, data, _ in part], "done")
            for one, _, images in part:
                self.pace.done(images, one.waited_ms + 1000 * (time.monotonic() - one.since))

    def _answer(self, one: Asked, answer: Answer) -> None:
        self._send([(one, _reply(one, answer))], "done")

    def _fail(self, one: Asked, why: str) -> None:
        self._send([(one, write_reply(Reply(id=str(one.taken.id), outcome="failed", says=why)))], "failed")

    def _send(self, replies: Sequence[tuple[Asked, bytes]], outcome: str) -> None:
        """Send replies that have this outcome, in one step."""
        began = time.monotonic()
        firsts = self._inbox.reply([(one.taken, one.request.reply_to, data) for one, data in replies])
        for first in firsts:
            ONLINE_SECONDS.observe(time.monotonic() - began, "reply")
            ONLINE_REQUESTS.add(1, outcome if first else "overtaken")

    def _drop(self, taken: Taken, outcome: str) -> None:
        self._inbox.drop(taken)
        ONLINE_REQUESTS.add(1, outcome)


def _parts(answers: Iterable[tuple[Asked, Answer]]) -> Iterator[list[tuple[Asked, bytes, int]]]:
    """Yield requests with their replies and how many rows these have, together up to about `_REPLY_BYTES`."""
    part: list[tuple[Asked, bytes, int]] = []
    held = 0
    try:
        for one, answer in answers:
            ONLINE_SECONDS.observe(time.monotonic() - one.since, "compute")
            part.append((one, _reply(one, answer), len(answer.rows)))
            held += len(part[-1][1])
            if held >= _REPLY_BYTES:
                yield part
                part, held = [], 0
    except Exception:
        if part:  # they are done, whatever became of the next one
            yield part
        raise
    if part:
        yield part


def _reply(one: Asked, answer: Answer) -> bytes:
    return write_reply(Reply(id=str(one.taken.id), outcome="done", rows=answer.rows), answer.files)


def _grouped(taken: Sequence[Taken], images: int) -> list[list[Taken]]:
    """Return requests in groups of at most `_GROUP_BYTES` and so many images, in their order."""
    groups: list[list[Taken]] = []
    room, places = 0, 0
    for one in taken:
        if one.id.size > room or one.id.images > places:
            groups.append([])
            room, places = _GROUP_BYTES, images
        groups[-1].append(one)
        room -= one.id.size
        places -= one.id.images
    return groups
