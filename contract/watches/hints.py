"""Keys that were announced and not looked at yet: a capped stream in Redis for each watch, read by a consumer group.

A hint saves waiting for the next sweep, and nothing more. What is trimmed, what Redis forgets and what lapses after an
hour is found by a sweep. What a controller took and did not settle is taken again after a minute, by whoever keeps the
watch then.

One more stream names the watches that were told something, so that whoever keeps one looks at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from redis.exceptions import OutOfMemoryError, ResponseError

from contract.backend.ledger import Ledger
from contract.errors import RedisUnavailable

_SCRIPT = Path(__file__).with_name("hints.lua").read_text()

MOST = 10_000
"""Hints of one watch in Redis, about 200 bytes each; the oldest go first."""
_KEPT_SECONDS = 3600
_IDLE_SECONDS = 60
_AT_ONCE = 5_000


class Hints:
    """The hints of all watches, as one controller reads and writes them.

    One thread at a time may `take` and `settle` those of a watch; any may `tell`.
    """

    def __init__(self, ledger: Ledger, *, most: int = MOST, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._ledger, self._most, self._idle = ledger, most, round(idle_seconds * 1000)
        self._consumer = uuid.uuid4().hex
        self._taken: dict[str, list[str]] = {}

    def tell(self, found: Mapping[str, Collection[str]]) -> None:
        """Write keys for watches, by the names of the watches; raises RedisUnavailable if Redis has no room either."""
        for watch, keys in found.items():
            self._run("tell", watch, self._most, _KEPT_SECONDS, watch, *keys)

    def take(self, watch: str) -> list[str]:
        """Return keys that may be new, those that another controller took and did not settle among them.

        Return none if Redis is away: the sweeps go on without it.
        """
        try:
            answer = self._run("take", watch, self._consumer, self._idle, _AT_ONCE)
        except RedisUnavailable:
            return []
        ids, keys = answer[::2], answer[1::2]
        self._taken.setdefault(watch, []).extend(ids)
        return list(dict.fromkeys(keys))

    def settle(self, watch: str) -> None:
        """Delete the hints that were taken since the last time: their keys are planned, or need not be."""
        if ids := self._taken.pop(watch, []):
            try:
                for first in range(0, len(ids), 1000):
                    self._run("settle", watch, *ids[first : first + 1000])
            except RedisUnavailable:
                pass  # they are taken again, and found to be planned

    def drop(self, watch: str) -> None:
        """Leave what was taken and not settled to whoever takes it next."""
        self._taken.pop(watch, None)

    def _run(self, step: str, watch: str, *args: object) -> list[str]:
        try:
            streams = [self._ledger.keys.hints(watch), self._ledger.keys.hinted]
            return [str(one) for one in self._ledger.script(_SCRIPT, streams, [step, *args])]
        except (OutOfMemoryError, ResponseError) as error:
            if "OOM" not in str(error):
                raise
            raise RedisUnavailable("Redis is out of memory; raise `maxmemory` and try again.") from error


class Told:
    """The names of the watches that were told something, as one controller hears them; one thread may wait for them.

    It keeps a connection of its ledger while it waits, so the ledger should be its own.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._heard: str | None = None

    def wait(self, seconds: float) -> set[str]:
        """Return the names that were told since the last call, as soon as there are any, or none after `seconds`.

        Raises RedisUnavailable. What is told while Redis is away is not heard of, and waits for a sweep.
        """
        stream = self._ledger.keys.hinted
        try:
            if self._heard is None:
                self._heard = self._ledger.newest(stream)
            found = self._ledger.read_stream(stream, after=self._heard, seconds=seconds)
        except RedisUnavailable:
            self._heard = None
            raise
        if found:
            self._heard = found[-1][0]
        return {fields["w"] for _, fields in found if "w" in fields}
