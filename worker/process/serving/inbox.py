"""The requests for one model, as a worker takes them from Redis, and its replies. It knows no model and no image.

A process reads the stream as a consumer named after itself. What it took stays pending until its reply, so that
another process claims it if this one falls silent.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import redis

from contract.keys.online import OnlineKeys
from contract.online.connection import GROUP, script
from contract.online.messages import MOST_BYTES, RequestId
from contract.online.state import WorkerSays, alive

NOBODY = "nobody"
"""The consumer that holds what a live worker passes on."""
_KEEP_MS = 30_000
"""A reply for which nobody comes is kept for so long."""
_AGAIN_MS = 500
"""A request is not claimed twice within this time."""
_FORGET_MS = 60_000
_CLAIM = 16
_PAGE = 100


@dataclass(frozen=True)
class Taken:
    """An entry of the stream that this process holds."""

    entry: bytes
    id: RequestId
    deliveries: int = 1
    """Processes that have held it, this one included."""

    @property
    def asked_ms(self) -> int:
        """When it was admitted, by Redis' clock."""
        return int(self.entry.split(b"-")[0])


Answered: TypeAlias = tuple[Taken, str, bytes]
"""A request, the process that asked, and the reply."""


class Inbox:
    """Requests for `model`, `name@version`, on one Redis; it may be used from several threads."""

    def __init__(self, client: redis.Redis, keys: OnlineKeys, model: str, process: str) -> None:
        self._redis, self._keys, self._model, self._process = client, keys, model, process
        self._stream = keys.requests(model)
        self._answer = client.register_script(script("answer"))
        self._held: set[bytes] = set()
        """Entries that are being worked on."""
        self._lost = threading.Event()
        """Set while this process may hold entries in Redis that it does not work on."""
        self._saying = threading.Lock()
        self._left = False

    def take(self, most: int, wait_ms: int) -> list[Taken]:
        """Take up to `most` requests, waiting for the first one; malformed entries are dropped.

        What this process holds without working on it, since a connection was lost, comes first.
        """
        try:
            found = self._recovered(most) if self._lost.is_set() else []
            return found or self._parsed(self._read(most, wait_ms))
        except redis.RedisError:
            self._lost.set()  # the answer that did not come may have named entries
            raise

    def lose(self, taken: Sequence[Taken]) -> None:
        """Have requests come again whose reply may not have arrived, or which were not begun."""
        self._held.difference_update(one.entry for one in taken)
        self._lost.set()

    def claim(self) -> list[Taken]:
        """Take what silent processes hold, and forget those that have been silent for long."""
        now_ms, said = self._said()
        self._forget(now_ms, said)
        living = alive(said, now_ms)
        claimed: list[Taken] = []
        try:
            for name, pending, idle_ms in self._consumers():
                if name in living or name == self._process:
                    continue
                if pending:
                    claimed += self._claim_from(name)
                elif idle_ms > _FORGET_MS and name != NOBODY:
                    self._redis.xgroup_delconsumer(self._stream, GROUP, name)
        except redis.RedisError:
            self.lose(claimed)
            raise
        return claimed

    def payloads(self, taken: Sequence[Taken]) -> tuple[int, list[bytes | None]]:
        """Return the time in milliseconds and the payload of each, at most a byte longer than it may be.

        None stands for a request that has expired, was withdrawn, or has its reply.
        """
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        for one in taken:
            pipe.getrange(self._keys.payload(str(one.id)), 0, MOST_BYTES)
        (seconds, micros), *found = pipe.execute()
        return seconds * 1000 + micros // 1000, [data or None for data in found]

    def reply(self, answered: Sequence[Answered]) -> list[bool]:
        """Answer requests, in one step; return of each whether this was its first reply, and in time."""
        if not answered:
            return []
        keys = [self._keys.open, self._keys.load, self._stream]
        arguments: list[Any] = [GROUP, _KEEP_MS]
        for taken, asker, data in answered:
            keys += [self._keys.payload(str(taken.id)), self._keys.replies(asker)]
            arguments += [str(taken.id), taken.entry, data]
        found: Any = self._answer(keys, arguments)
        self._held.difference_update(taken.entry for taken, _, _ in answered)
        return [bool(first) for first in found]

    def drop(self, taken: Taken) -> None:
        """End a request without a reply."""
        self.reply([(taken, "", b"")])

    def pass_on(self, taken: Taken) -> int:
        """Leave a request that raised here to another process; return on how many it has raised."""
        faults = self._keys.faults(str(taken.id))
        pipe = self._redis.pipeline()
        pipe.sadd(faults, self._process)
        pipe.pexpire(faults, _KEEP_MS)
        pipe.scard(faults)
        count = pipe.execute()[2]
        self.hand_over(taken)
        return int(count)

    def hand_over(self, taken: Taken) -> None:
        """Leave a request to whoever claims it first; nothing is counted against it."""
        # Whoever claims it adds a delivery, and none stands for a process that died with it.
        self._redis.xclaim(
            self._stream, GROUP, NOBODY, 0, [taken.entry], retrycount=max(0, taken.deliveries - 1), justid=True
        )
        self._held.discard(taken.entry)

    def faults(self, taken: Taken) -> int:
        """Return on how many other processes a request has raised."""
        found: Any = self._redis.smembers(self._keys.faults(str(taken.id)))
        return len(found - {self._process.encode()})

    def living(self) -> tuple[int, dict[str, WorkerSays]]:
        """Return the time in milliseconds, and what every process says that serves the model."""
        now_ms, said = self._said()
        return now_ms, alive(said, now_ms)

    def say(self, says: WorkerSays) -> None:
        """Say that this process serves the model, and how fast, unless it has left."""
        with self._saying:
            if self._left:
                return
            pipe = self._redis.pipeline(transaction=False)
            pipe.hset(self._keys.workers(self._model), self._process, says.field())
            pipe.expire(self._keys.workers(self._model), 3600)
            pipe.execute()

    def leave(self) -> None:
        """Take that back, for good: a beat that began before must not admit requests that nobody takes."""
        with self._saying:
            self._left = True
            self._redis.hdel(self._keys.workers(self._model), self._process)

    def _said(self) -> tuple[int, dict[bytes, bytes]]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(self._keys.workers(self._model))
        (seconds, micros), said = pipe.execute()
        return seconds * 1000 + micros // 1000, said

    def _forget(self, now_ms: int, said: dict[bytes, bytes]) -> None:
        """Remove what processes said that are gone: each admission reads all of it."""
        parsed = {process: WorkerSays.parse(text.decode(errors="replace")) for process, text in said.items()}
        gone = [process for process, says in parsed.items() if says and now_ms - says.at_ms > _FORGET_MS]
        if gone:
            self._redis.hdel(self._keys.workers(self._model), *gone)

    def _consumers(self) -> list[tuple[str, int, int]]:
        """Return each consumer of the stream, how many entries it holds, and for how many ms it has been idle."""
        found: Any = []
        with suppress(redis.ResponseError):  # no stream yet
            found = self._redis.xinfo_consumers(self._stream, GROUP)
        return [(one["name"].decode(errors="replace"), one["pending"], one["idle"]) for one in found]

    def _read(self, most: int, wait_ms: int) -> list[tuple[bytes, Any]]:
        try:
            found: Any = self._redis.xreadgroup(GROUP, self._process, {self._stream: ">"}, count=most, block=wait_ms)
            return list(found[0][1]) if found else []
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        with suppress(redis.ResponseError):  # another process was first
            self._redis.xgroup_create(self._stream, GROUP, "0", mkstream=True)
        return []

    def _recovered(self, most: int) -> list[Taken]:
        """Return up to `most` entries that this process holds in Redis and does not work on."""
        self._lost.clear()
        deliveries: dict[bytes, int] = {}
        after = "-"
        while len(deliveries) < most:
            try:
                page: Any = self._redis.xpending_range(self._stream, GROUP, after, "+", _PAGE, self._process)
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                return []
            for one in page:
                if one["message_id"] not in self._held:
                    deliveries[one["message_id"]] = int(one["times_delivered"])
            if len(page) < _PAGE:
                break
            after = f"({page[-1]['message_id'].decode()}"
        if not deliveries:
            return []
        self._lost.set()  # there may be more
        deliveries = dict(islice(deliveries.items(), most))
        # Read, and not delivered once more: deliveries count the processes that had an entry.
        pipe = self._redis.pipeline(transaction=False)
        for entry in deliveries:
            pipe.xrange(self._stream, entry, entry)
        entries = [
            (entry, found[0][1] if found else None) for entry, found in zip(deliveries, pipe.execute(), strict=True)
        ]
        return self._parsed(entries, deliveries)

    def _claim_from(self, consumer: str) -> list[Taken]:
        pending: Any = self._redis.xpending_range(self._stream, GROUP, "-", "+", _CLAIM, consumer)
        deliveries = {one["message_id"]: int(one["times_delivered"]) for one in pending}
        if consumer == NOBODY:
            deliveries = {entry: times for entry, times in deliveries.items() if not self._raised_here(entry)}
        if not deliveries:
            return []
        found: Any = self._redis.xclaim(self._stream, GROUP, self._process, _AGAIN_MS, list(deliveries))
        return self._parsed(
            [(entry, fields) for entry, fields in found if entry not in self._held],
            {entry: times + 1 for entry, times in deliveries.items()},
        )

    def _raised_here(self, entry: bytes) -> bool:
        found: Any = self._redis.xrange(self._stream, entry, entry)
        id = found[0][1].get(b"id", b"").decode(errors="replace") if found else ""
        return bool(self._redis.sismember(self._keys.faults(id), self._process))

    def _parsed(self, entries: Sequence[tuple[bytes, Any]], deliveries: dict[bytes, int] | None = None) -> list[Taken]:
        taken = []
        for entry, fields in entries:
            id = RequestId.parse((fields or {}).get(b"id", b"").decode(errors="replace"))
            if id is None or id.model != self._model or id.size > MOST_BYTES:
                self._redis.xack(self._stream, GROUP, entry)
                self._redis.xdel(self._stream, entry)
                continue
            taken.append(Taken(entry, id, (deliveries or {}).get(entry, 1)))
        self._held.update(one.entry for one in taken)
        return taken
