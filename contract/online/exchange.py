"""Sends requests to the Redis of the online path and waits for their replies, for one event loop.

Replies of all requests of a process come on one list. A request is asked again under its id when the connection was
lost meanwhile: Redis admits an id once, and a worker's second reply to it is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import redis

from contract.errors import Expired, InvalidInput, OnlineFailed, Overloaded, RedisUnavailable, ServiceUnavailable
from contract.instruments import ONLINE_FORWARD_SECONDS
from contract.keys.online import OnlineKeys
from contract.online import messages
from contract.online.admission import Admission, Answer
from contract.online.connection import LOST, SILENT_SECONDS, connect_async, mapped, need_address
from contract.online.frames import MalformedFrameError
from contract.online.messages import Reply, RequestId
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
    lost: int = 0
    """How often the connection was lost since a task began to ask for it again; 0 while there is none."""


class Exchange:
    """The requests of a process that wait for a reply, until `aclose`."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSettings if no Redis carries requests."""
        self._address = need_address(settings)
        self._keys = OnlineKeys(settings.namespace)
        self.asker = uuid.uuid4().hex
        """What a request names to have its reply come here."""
        self._redis = connect_async(self._address, connections=_CONNECTIONS, timeout=SILENT_SECONDS)
        self._admission = Admission(self._redis, self._keys)
        self._waiting: dict[str, _Waits] = {}
        self._listener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

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
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    def check(self, model: str, images: int, until: float) -> None:
        """Raise Overloaded if a request like this was refused a moment ago; ask it before the request is packed."""
        said = self._admission.late(model, images, int(1000 * (until - time.monotonic())))
        if said is not None:
            with _measured():
                raise _refused(said, model)

    async def send(self, id: RequestId, payload: bytes, until: float, deadline: float) -> tuple[Reply, list[bytes]]:
        """Send a request, and return its reply; `until` is by the monotonic clock.

        Raises InvalidInput or OnlineFailed if the reply is none of results, Overloaded, Expired and RedisUnavailable.
        """
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
                    waits.reply.cancel()
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
        replies = self._keys.replies(self.asker)
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
                    waits.lost += 1
                    if waits.lost == 1:
                        self._later(self._ask_again(waits))

    async def _reconnect(self) -> None:
        """Wait until Redis answers, for a moment at least: one that accepts no writes answers, too."""
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            with suppress(redis.RedisError):
                await self._redis.ping()
                return

    async def _ask_again(self, waits: _Waits) -> None:
        """Ask for a request until no connection is lost meanwhile."""
        asked = 0
        try:
            with suppress(Exception):  # whoever waits for it sees that it expires
                while asked < waits.lost:
                    asked = waits.lost
                    await self._admit(waits, insist=True)
        finally:
            waits.lost = 0
        if waits.reply.cancelled():  # whoever waited has gone meanwhile
            await self._give_up(waits)

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


def _refused(answer: Answer, model: str) -> Overloaded:
    """Return why Redis did not admit a request, with a time after which it may."""
    if answer[0] == b"none":
        return Overloaded(f"No worker is ready for {model}; `imagemill served` shows how it stands.", retry_after=1.0)
    seconds = max(0.1, int(answer[1]) / 1000)
    why = "More requests wait than are held" if answer[0] == b"full" else "An answer would come after the deadline"
    return Overloaded(f"{why} for {model}; try again in {seconds:.1f} s.", retry_after=seconds)
