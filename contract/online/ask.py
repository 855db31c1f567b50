"""The asking side: sends requests to served models and waits for their replies, for one event loop.

Replies of all requests of a process come on one list. A request is asked again under its id when the connection was
lost meanwhile: Redis admits an id once, and a worker's second reply to it is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from contract.backend.objects import ObjectStore
from contract.errors import (
    Expired,
    InvalidInput,
    NotServed,
    OnlineFailed,
    Overloaded,
    RedisUnavailable,
    RequestTooLarge,
    ServiceUnavailable,
)
from contract.jobs.results import Row
from contract.keys import OnlineKeys
from contract.online import messages
from contract.online.connection import LOST, SILENT_SECONDS, mapped, need_address, options, script
from contract.online.frames import MalformedFrameError
from contract.online.messages import Classify, Generate, Reply, RequestId
from contract.online.served import Served, ServedModels, check_task, find
from contract.settings import Settings

log = logging.getLogger(__name__)

_CONNECTIONS = 16
_FRESH_SECONDS, _ANEW_SECONDS = 5.0, 0.5
"""The list of served models is read again after so long; after the second if a model is not in it."""
_LISTEN_SECONDS = 2.0
_PAUSE_SECONDS = 0.05
_AWAY_SECONDS = 3.0
"""A request waits so long for a Redis that does not answer."""
_LATE_SECONDS = 0.1
"""A reply may be under way when the deadline passes."""


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
        self._store = store
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
        self._ask = self._redis.register_script(script("ask"))
        self._withdraw = self._redis.register_script(script("withdraw"))
        self._waiting: dict[str, _Waits] = {}
        self._listener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._served: list[Served] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._found: dict[str, tuple[float, Served]] = {}

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
        if not 1 <= len(images) <= messages.MOST_IMAGES:
            raise RequestTooLarge(f"A request has 1 to {messages.MOST_IMAGES} images; this one has {len(images)}.")
        if not 1 <= top_k <= messages.MOST_TOP_K:
            raise InvalidInput(f"top_k is 1 to {messages.MOST_TOP_K}, not {top_k}.")
        names = tuple(str(n) for n in range(len(images))) if keys is None else tuple(key[:1024] for key in keys)
        if len(names) != len(images):
            raise InvalidInput(f"There are {len(names)} names for {len(images)} images; name each.")
        served = await self.resolve(model)
        check_task(served, ("classify", "classify-sequence"))
        request = Classify(reply_to=self._asker, keys=names, top_k=top_k, embed=embed)
        reply, _ = await self._send(served, len(images), messages.write_request(request, images), deadline)
        if len(reply.rows) != len(images):
            raise OnlineFailed(f"A worker answered with {len(reply.rows)} rows for {len(images)} images; try again.")
        return [dict(row) for row in reply.rows]

    async def generate(
        self,
        model: str,
        *,
        label: str | None = None,
        seed: int = 0,
        count: int = 1,
        deadline: float = messages.DEADLINE_SECONDS,
    ) -> list[bytes]:
        """Return `count` images, at most 64, as PNG files: those that a job with this seed would make first."""
        if not 1 <= count <= messages.MOST_IMAGES:
            raise RequestTooLarge(f"A request makes 1 to {messages.MOST_IMAGES} images; this one asks for {count}.")
        if not 0 <= seed < 2**63:
            raise InvalidInput(f"A seed is 0 to 2^63 − 1, not {seed}.")
        served = await self.resolve(model)
        check_task(served, ("generate",))
        request = Generate(reply_to=self._asker, label=label, seed=seed, count=count)
        _, images = await self._send(served, count, messages.write_request(request), deadline)
        if len(images) != count:
            raise OnlineFailed(f"A worker answered with {len(images)} images in place of {count}; try again.")
        return images

    async def resolve(self, model: str) -> Served:
        """Return the served model that `name`, `name@version` or `name@alias` stands for; raises NotServed.

        What is served is read from the bucket every few seconds, and stays as it was while the bucket does not answer.
        """
        now = time.monotonic()
        read_at, found = self._found.get(model, (float("-inf"), None))
        if found is not None and now - read_at < _FRESH_SECONDS:
            return found
        try:
            found = await self._find(model, _FRESH_SECONDS)
        except NotServed:
            found = await self._find(model, _ANEW_SECONDS)
        if len(self._found) > 1000:
            self._found.clear()
        self._found[model] = now, found
        return found

    async def _find(self, model: str, age: float) -> Served:
        async with self._reading:
            if time.monotonic() - self._read_at > age:
                try:
                    self._served = await asyncio.to_thread(ServedModels(self._store).all)
                except ServiceUnavailable as error:
                    if not self._served:
                        raise
                    log.info("Whether other models are served is not known now: %s", error)
                self._read_at = time.monotonic()
        return await asyncio.to_thread(find, model, self._served, self._store)

    async def _send(self, served: Served, images: int, payload: bytes, deadline: float) -> tuple[Reply, list[bytes]]:
        """Send a request, and return its reply when that says `done`."""
        if not 0 < deadline <= messages.LONGEST_SECONDS:
            raise InvalidInput(
                f"A deadline is more than 0 and at most {messages.LONGEST_SECONDS:g} s, not {deadline:g}."
            )
        loop = asyncio.get_running_loop()
        id = RequestId.new(images, len(payload), served.ref)
        waits = _Waits(id, payload, time.monotonic() + deadline, loop.create_future())
        self._waiting[str(id)] = waits
        if self._listener is None or self._listener.done():
            self._listener = loop.create_task(self._listen())
        done = False
        try:
            await self._admit(waits)
            left = waits.until - time.monotonic() + _LATE_SECONDS
            reply, pieces = await asyncio.wait_for(asyncio.shield(waits.reply), left)
            done = True
        except TimeoutError:
            raise Expired(
                f"{served.ref} did not answer within {deadline:g} s; allow more time, or try again."
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
        while True:
            budget = int(1000 * (waits.until - time.monotonic()))
            if budget <= 0:
                raise Expired(f"{waits.id.model} could not be asked in time; try again.")
            try:
                with mapped(self._address):
                    said = await self._ask(*self._asking(waits, budget))
                answer = said[0].decode(), *said[1:]
                if answer[0] == "taken":
                    return
                if not insist:
                    raise _refused(answer, waits.id.model)
            except RedisUnavailable:
                if not insist and time.monotonic() > away_at:
                    raise
            except Overloaded:
                if not insist:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    def _asking(self, waits: _Waits, budget: int) -> tuple[list[str], list[Any]]:
        names, id = self._keys, waits.id
        keys = [names.open, names.load, names.requests(id.model), names.workers(id.model), names.payload(str(id))]
        limits = [messages.MOST_WAITING_BYTES, messages.MOST_WAITING, int(1000 * SILENT_SECONDS)]
        return keys, [str(id), waits.payload, id.images, id.size, id.model, budget, *limits]

    async def _give_up(self, waits: _Waits) -> None:
        with suppress(Exception):
            id = str(waits.id)
            await self._withdraw([self._keys.open, self._keys.load, self._keys.payload(id)], [id])

    async def _listen(self) -> None:
        """Hand replies to whoever waits for them; after a lost connection, ask for what still waits again."""
        replies = self._keys.replies(self._asker)
        while True:
            try:
                found = await self._redis.blpop([replies], timeout=_LISTEN_SECONDS)
                more: Any = [found[1]] if found else []
                while more:
                    for reply in more:
                        self._dispatch(reply)
                    more = await self._redis.lpop(replies, 64) or []
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


def _refused(answer: tuple[Any, ...], model: str) -> Overloaded:
    """Return why Redis did not admit a request, with a time after which it may."""
    if answer[0] == "none":
        return Overloaded(f"No worker is ready for {model}; `imagemill served` shows how it stands.", retry_after=1.0)
    seconds = max(0.1, int(answer[1]) / 1000)
    why = "More requests wait than are held" if answer[0] == "full" else "An answer would come after the deadline"
    return Overloaded(f"{why} for {model}; try again in {seconds:.1f} s.", retry_after=seconds)
