"""Keys that were announced and not looked at yet: a capped stream in Redis for each watch, read by a consumer group.

A hint saves waiting for the next sweep, and nothing more. What is trimmed, what Redis forgets and what lapses after an
hour is found by a sweep. What a controller took and did not settle is taken again after a minute, by whoever keeps the
watch then.
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
            self._run("tell", watch, self._most, _KEPT_SECONDS, *keys)

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
            return [str(one) for one in self._ledger.script(_SCRIPT, [self._ledger.keys.hints(watch)], [step, *args])]
        except (OutOfMemoryError, ResponseError) as error:
            if "OOM" not in str(error):
                raise
            raise RedisUnavailable("Redis is out of memory; raise `maxmemory` and try again.") from error
