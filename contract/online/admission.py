"""Asks Redis to admit requests, for one event loop: those that are asked for at once go in one step.

So they cost less, and lie on the stream together when a worker looks: it takes a batch in place of the first of them.
A refusal stands for a moment, so that under overload most of those that are refused cost no step at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import redis.asyncio

from contract.keys.online import OnlineKeys
from contract.online import messages
from contract.online.connection import SILENT_SECONDS, script
from contract.online.messages import RequestId

_TOGETHER_BYTES, _TOGETHER = 2**20, 64
"""Payloads that go in one step. Redis looks once whether it has memory for them, and serves nobody else meanwhile."""
_STANDS, _STANDS_SECONDS = 0.02, 0.05
"""For this part of its time the refusal of a request that would be late stands for others like it, and for so long at
most. The part is a tenth of what `ask.lua` leaves for what the rate does not know. All that could have been admitted
meanwhile comes at once then, and who is refused among them waits for all: 52 ms after a fifth of a second."""

Answer: TypeAlias = list[Any]
"""What `ask.lua` says of one request."""


@dataclass(frozen=True)
class _Asked:
    id: RequestId
    payload: bytes
    budget_ms: int
    answer: asyncio.Future[Answer]


@dataclass
class _Late:
    """The refusal of a request that would be late."""

    images: int
    budget_ms: int
    answer: Answer
    until: float
    """By the monotonic clock."""

    def covers(self, images: int, budget_ms: int) -> bool:
        """Return whether a request with so many images and so much time would be late, too."""
        return images >= self.images and budget_ms <= (1 + _STANDS) * self.budget_ms


class Admission:
    """Asks for the admission of requests until `aclose`."""

    def __init__(self, client: redis.asyncio.Redis, keys: OnlineKeys) -> None:
        self._keys = keys
        self._ask = client.register_script(script("ask"))
        self._withdraw = client.register_script(script("withdraw"))
        self._late: dict[str, _Late] = {}
        self._queued: list[_Asked] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ask(self, id: RequestId, payload: bytes, budget_ms: int) -> Answer:
        """Return what `ask.lua` says of a request; raises what redis-py raises. `budget_ms` is left until its end."""
        if self._closed:
            raise redis.ConnectionError("closed")
        loop = asyncio.get_running_loop()
        asked = _Asked(id, payload, budget_ms, loop.create_future())
        if not self._queued:
            loop.call_soon(self._start, context=Context())
        self._queued.append(asked)
        return await asked.answer

    def late(self, model: str, images: int, budget_ms: int) -> Answer | None:
        """Return what `ask.lua` said of a request like this a moment ago, if that was that it would be late.

        After that moment None is returned once, for a request that finds out; until its answer the refusal stands.
        """
        found = self._late.get(model)
        if found is None or not found.covers(images, budget_ms):
            return None
        if (now := time.monotonic()) <= found.until:
            return found.answer
        found.until = now + _stands(budget_ms)
        return None

    async def withdraw(self, id: RequestId) -> None:
        """End a request for which nobody waits any more; raises what redis-py raises."""
        names = self._keys
        await self._withdraw([names.open, names.load, names.payload(str(id))], [str(id)])

    async def aclose(self) -> None:
        """End what is under way; whoever waits for it sees a connection that was lost."""
        self._closed = True
        queued, self._queued = self._queued, []
        _lose(queued)
        for task in tuple(self._sending):
            while not task.done():
                task.cancel()  # again and again: redis-py may take one for a timeout of its own
                await asyncio.wait([task], timeout=0.1)

    def _start(self) -> None:
        """Send what is queued; what is asked for meanwhile goes on a connection of its own."""
        queued: dict[str, list[_Asked]] = {}
        for asked in self._queued:
            if not asked.answer.done():  # else whoever asked has gone
                queued.setdefault(asked.id.model, []).append(asked)
        self._queued = []
        # Each model by itself: keys of one that somebody wrote over must not keep others from theirs.
        for some in queued.values():
            while some:
                count = _together([len(asked.payload) for asked in some])
                task = asyncio.get_running_loop().create_task(self._send(some[:count]))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
                # It may be cancelled before it begins.
                task.add_done_callback(partial(_lose, some[:count]))
                some = some[count:]

    async def _send(self, some: Sequence[_Asked]) -> None:
        error: Exception = redis.ConnectionError("closed")
        try:
            with suppress(asyncio.CancelledError):
                answers = await self._answers(some)
                gone: list[RequestId] = []
                for asked, answer in zip(some, answers, strict=True):
                    self._note(asked.id, asked.budget_ms, answer)
                    if not asked.answer.done():
                        asked.answer.set_result(answer)
                    elif answer[0] == b"taken":
                        gone.append(asked.id)
                for id in gone:  # its own withdrawal may have come before it was admitted
                    await self.withdraw(id)
        except Exception as raised:
            error = raised
        for asked in some:
            if not asked.answer.done():
                asked.answer.set_exception(error)

    def _note(self, id: RequestId, budget_ms: int, answer: Answer) -> None:
        if answer[0] == b"late":
            self._late[id.model] = _Late(id.images, budget_ms, answer, time.monotonic() + _stands(budget_ms))
        elif (found := self._late.get(id.model)) and found.covers(id.images, budget_ms):
            del self._late[id.model]

    async def _answers(self, some: Sequence[_Asked]) -> list[Answer]:
        names = self._keys
        keys = [names.open, names.load]
        arguments: list[Any] = [messages.MOST_WAITING_BYTES, messages.MOST_WAITING, int(1000 * SILENT_SECONDS)]
        for asked in some:
            id = asked.id
            keys += [names.requests(id.model), names.workers(id.model), names.payload(str(id))]
            arguments += [str(id), asked.payload, id.images, id.size, id.model, asked.budget_ms]
        answers: list[Answer] = await self._ask(keys, arguments)
        return answers


def _stands(budget_ms: int) -> float:
    """Return for how many seconds a refusal stands."""
    return min(_STANDS * budget_ms / 1000, _STANDS_SECONDS)


def _lose(some: Sequence[_Asked], _: object = None) -> None:
    """Tell who still waits that the connection was lost."""
    for asked in some:
        if not asked.answer.done():
            asked.answer.set_exception(redis.ConnectionError("closed"))


def _together(sizes: Sequence[int]) -> int:
    """Return how many of the first requests go in one step, at least one, by the bytes of their payloads."""
    count, held = 0, 0
    for size in sizes[:_TOGETHER]:
        held += size
        if count and held > _TOGETHER_BYTES:
            break
        count += 1
    return count
