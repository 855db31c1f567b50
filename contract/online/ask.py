"""The asking side: sends requests to served models and waits for their replies, for one event loop.

Replies of all requests of a process come on one list. A request is asked again under its id when the connection was
lost meanwhile: Redis admits an id once, and a worker's second reply to it is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from pydantic import ValidationError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from contract.backend.objects import ObjectStore
from contract.errors import (
    Expired,
    InvalidInput,
    OnlineFailed,
    Overloaded,
    RedisUnavailable,
    RequestTooLarge,
    ServiceUnavailable,
)
from contract.instruments import ONLINE_FORWARD_SECONDS
from contract.jobs.results import Row
from contract.keys.online import OnlineKeys
from contract.online import messages
from contract.online.admission import Admission, Answer
from contract.online.connection import LOST, SILENT_SECONDS, mapped, need_address, options
from contract.online.frames import MalformedFrameError
from contract.online.messages import Classify, Generate, Reply, RequestId
from contract.online.resolving import Resolver
from contract.online.served import Served, check_task
from contract.records import ImageFormat
from contract.settings import Settings

log = logging.getLogger(__name__)

_CONNECTIONS = 16
_LISTEN_SECONDS, _LISTEN_MOST = 2.0, 64
_PAUSE_SECONDS = 0.05
_AWAY_SECONDS = 3.0
"""A request waits so long for a Redis that does not answer."""
_LATE_SECONDS = 0.1
"""A reply may be under way when the deadline passes."""
_OUTCOMES: dict[type[Exception], str] = {
    InvalidInput: "refused",
    OnlineFailed: "failed",
    Overloaded: "overloaded",
    Expired: "expired",
    ServiceUnavailable: "unavailable",
}
"""What comes of a request that raises, as metrics call it; the first that fits counts."""


@dataclass
class _Waits:
    """A request without a reply."""

    id: RequestId
    payload: bytes
    until: float
    """By the monotonic clock."""
    reply: asyncio.Future[tuple[Reply, list[bytes]]]


class Online:
    """Asks served models; use it as an async context manager, in one event loop, for as many requests as there are.

    Methods raise NotServed, InvalidInput and RequestTooLarge for what the caller must change; Overloaded, with
    `retry_after` seconds, if an answer would come too late; Expired if none came in time; OnlineFailed if the request
    failed on a worker; RedisUnavailable if Redis does not answer for three seconds.
    """

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        """`store` is asked, in threads, what is served. Raises InvalidSettings if no Redis carries requests."""
        self._address = need_address(settings)
        self._keys = OnlineKeys(settings.namespace)
        self._asker = uuid.uuid4().hex
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            self._address.url,
            **self._address.tls,
            **options(),
            max_connections=_CONNECTIONS,
            timeout=SILENT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.asyncio.Redis.from_pool(pool)
        self._admission = Admission(self._redis, self._keys)
        self._waiting: dict[str, _Waits] = {}
        self._listener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._served = Resolver(store)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connections; requests that still wait fail with OnlineFailed."""
        for task in (*self._tasks, *([self._listener] if self._listener else [])):
            while not task.done():
                task.cancel()  # again and again: redis-py may take one for a timeout of its own
                await asyncio.wait([task], timeout=0.1)
        for waits in self._waiting.values():
            if not waits.reply.done():
                waits.reply.set_exception(OnlineFailed("The connection was closed before the answer came."))
        await self._admission.aclose()
        await self._served.aclose()
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def classify(
        self,
        model: str,
        images: Sequence[bytes],
        *,
        keys: Sequence[str] | None = None,
        top_k: int = 5,
        embed: bool = False,
        deadline: float = messages.DEADLINE_SECONDS,
    ) -> list[Row]:
        """Return a row for each image, in order, with the columns of a job's rows; a bad image is a row with its error.

        `model` is `name`, `name@version` or `name@alias`; `images` are files, at most 64 with 16 MiB together; `keys`
        are their names in the rows, their positions unless given; `deadline` is in seconds from now.
        """
        until = _until(deadline)
        if not 1 <= len(images) <= messages.MOST_IMAGES:
            raise RequestTooLarge(f"A request has 1 to {messages.MOST_IMAGES} images; this one has {len(images)}.")
        if not 1 <= top_k <= messages.MOST_TOP_K:
            raise InvalidInput(f"top_k is 1 to {messages.MOST_TOP_K}, not {top_k}.")
        names = tuple(str(n) for n in range(len(images))) if keys is None else tuple(key[:1024] for key in keys)
        if len(names) != len(images):
            raise InvalidInput(f"There are {len(names)} names for {len(images)} images; name each.")
        served = await self.resolve(model, deadline)
        check_task(served, ("classify", "classify-sequence"))
        self._see_whether_late(served.ref, len(images), until)
        request = Classify(reply_to=self._asker, keys=names, top_k=top_k, embed=embed)
        payload = messages.write_request(request, images)
        reply, _ = await self._send(RequestId.new(len(images), len(payload), served.ref), payload, until, deadline)
        if len(reply.rows) != len(images):
            raise OnlineFailed(f"A worker answered with {len(reply.rows)} rows for {len(images)} images; try again.")
        return [dict(row) for row in reply.rows]

    async def generate(
        self,
        model: str,
        *,
        classes: Sequence[str] = (),
        seed: int = 0,
        count: int = 1,
        size: int = 0,
        truncation: float | None = None,
        image_format: ImageFormat = "png",
        deadline: float = messages.DEADLINE_SECONDS,
        room: Callable[[int], None] = lambda size: None,
    ) -> list[Row]:
        """Return a row for each of `count` images, at most 64, with its file in `image`.

        They are those that a job with these options would make, in its order: spread evenly over `classes`, or over all
        that the model has. A row has columns of the job's index, and `precision` and `device`, on which bytes depend.
        `room` is called before the request is sent, with the bytes that the answer may have; what it raises ends it.
        """
        until = _until(deadline)
        if not 1 <= count <= messages.MOST_IMAGES:
            raise RequestTooLarge(
                f"A request makes 1 to {messages.MOST_IMAGES} images, not {count}; `imagemill generate` makes more."
            )
        options = {"classes": tuple(dict.fromkeys(classes)), "seed": seed, "count": count, "size": size}
        try:
            request = Generate(reply_to=self._asker, **options, truncation=truncation, image_format=image_format)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise InvalidInput(f"{first['loc'][0]}: {first['msg'].lower()}; correct it.") from None
        served = await self.resolve(model, deadline)
        check_task(served, ("generate",))
        record = await self._served.model(served, until - time.monotonic())
        record.class_numbers(request.classes)
        # The reply is what weighs, so this is what Redis counts.
        weight = messages.bytes_of_images(count, size or record.preprocess.size, record.preprocess.channels)
        room(weight)
        self._see_whether_late(served.ref, count, until)
        payload = messages.write_request(request)
        id = RequestId.new(count, max(weight, len(payload)), served.ref)
        reply, files = await self._send(id, payload, until, deadline)
        if not len(reply.rows) == len(files) == count:
            raise OnlineFailed(f"A worker answered with {len(files)} images in place of {count}; try again.")
        return [{**row, "image": file} for row, file in zip(reply.rows, files, strict=True)]

    async def resolve(self, model: str, deadline: float = messages.DEADLINE_SECONDS) -> Served:
        """Return the served model that `name`, `name@version` or `name@alias` stands for; raises NotServed.

        What is served is read from the bucket every few seconds, and stays as it was while the bucket does not answer.
        Raises Expired if nothing is known within `deadline` seconds.
        """
        return await self._served.served(model, deadline)

    def _see_whether_late(self, model: str, images: int, until: float) -> None:
        """Raise Overloaded if a request like this was refused a moment ago; its images are not even packed."""
        said = self._admission.late(model, images, int(1000 * (until - time.monotonic())))
        if said is not None:
            with _measured():
                raise _refused(said, model)

    async def _send(self, id: RequestId, payload: bytes, until: float, deadline: float) -> tuple[Reply, list[bytes]]:
        """Send a request, and return its reply when that says `done`; `until` is by the monotonic clock."""
        loop = asyncio.get_running_loop()
        waits = _Waits(id, payload, until, loop.create_future())
        self._waiting[str(id)] = waits
        if self._listener is None or self._listener.done():
            # In a context of its own: its lines of log are not of the request that happens to come first.
            self._listener = loop.create_task(self._listen(), context=Context())
        done = False
        with _measured():
            try:
                await self._admit(waits)
                left = waits.until - time.monotonic() + _LATE_SECONDS
                reply, pieces = await asyncio.wait_for(asyncio.shield(waits.reply), left)
                done = True
            except TimeoutError:
                raise Expired(
                    f"{id.model} did not answer within {deadline:g} s; allow more time, or try again."
                ) from None
            finally:
                del self._waiting[str(id)]
                if not done:
                    self._later(self._give_up(waits))
            if reply.outcome == "refused":
                raise InvalidInput(reply.says)
            if reply.outcome == "failed":
                raise OnlineFailed(reply.says)
        return reply, pieces

    async def _admit(self, waits: _Waits, *, insist: bool = False) -> None:
        """Have Redis take a request; `insist` on it until its deadline, since it was admitted before."""
        away_at = time.monotonic() + _AWAY_SECONDS
        while not waits.reply.done():
            budget = int(1000 * (waits.until - time.monotonic()))
            if budget <= 0:
                raise Expired(f"{waits.id.model} could not be asked in time; try again.")
            try:
                with mapped(self._address):
                    said = await self._admission.ask(waits.id, waits.payload, budget)
                if said[0] == b"taken":
                    return
                if not insist:
                    raise _refused(said, waits.id.model)
            except RedisUnavailable:
                if not insist and time.monotonic() > away_at:
                    raise
            except Overloaded:
                if not insist:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _give_up(self, waits: _Waits) -> None:
        with suppress(Exception):
            await self._admission.withdraw(waits.id)

    async def _listen(self) -> None:
        """Hand replies to whoever waits for them; after a lost connection, ask for what still waits again."""
        replies = self._keys.replies(self._asker)
        while True:
            try:
                found: Any = await self._redis.blpop([replies], timeout=_LISTEN_SECONDS)
                came = [found[1]] if found else []
                # What comes together is handed on together: what those who asked ask for next goes together, too.
                try:
                    while came and len(self._waiting) > len(came):
                        more: Any = await self._redis.lpop(replies, _LISTEN_MOST) or []
                        came += more
                        if len(more) < _LISTEN_MOST:
                            break
                finally:  # Redis has them no more
                    for reply in came:
                        self._dispatch(reply)
            except redis.RedisError as error:
                if not isinstance(error, LOST):  # such as a failover, or a key that somebody wrote over
                    log.warning("Replies of served models wait: %s", error)
                    await asyncio.sleep(_LISTEN_SECONDS)
                await self._reconnect()
                for waits in list(self._waiting.values()):
                    self._later(self._ask_again(waits))

    async def _reconnect(self) -> None:
        while True:
            try:
                await self._redis.ping()
                return
            except redis.RedisError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask_again(self, waits: _Waits) -> None:
        with suppress(Exception):  # whoever waits for it sees that it expires
            await self._admit(waits, insist=True)

    def _dispatch(self, data: bytes) -> None:
        try:
            reply, pieces = messages.read_reply(data)
        except MalformedFrameError:
            return
        waits = self._waiting.get(reply.id)
        if waits is not None and not waits.reply.done():
            waits.reply.set_result((reply, pieces))

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextmanager
def _measured() -> Iterator[None]:
    """Measure how long the block waits for a reply, and what comes of it."""
    began, outcome = time.perf_counter(), "abandoned"
    try:
        yield
        outcome = "done"
    except Exception as error:
        outcome = next((name for kind, name in _OUTCOMES.items() if isinstance(error, kind)), "failed")
        raise
    finally:
        ONLINE_FORWARD_SECONDS.observe(time.perf_counter() - began, outcome)


def _until(deadline: float) -> float:
    """Return when a request must have its answer, by the monotonic clock; raises InvalidInput."""
    if not 0 < deadline <= messages.LONGEST_SECONDS:
        raise InvalidInput(f"A deadline is more than 0 and at most {messages.LONGEST_SECONDS:g} s, not {deadline:g}.")
    return time.monotonic() + deadline


def _refused(answer: Answer, model: str) -> Overloaded:
    """Return why Redis did not admit a request, with a time after which it may."""
    if answer[0] == b"none":
        return Overloaded(f"No worker is ready for {model}; `imagemill served` shows how it stands.", retry_after=1.0)
    seconds = max(0.1, int(answer[1]) / 1000)
    why = "More requests wait than are held" if answer[0] == b"full" else "An answer would come after the deadline"
    return Overloaded(f"{why} for {model}; try again in {seconds:.1f} s.", retry_after=seconds)
