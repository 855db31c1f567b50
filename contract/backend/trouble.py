"""What has gone wrong with a shard so far, as the ledger remembers it, and what follows from it.

Deaths and exceptions are kept apart. A death makes the shard a suspect, which runs alone in its next process; only if
that process dies too does it count as a kill. An exception counts against nothing: it names the process that raised it,
so that another one tries.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_FIRST_SECONDS, _SECONDS_AT_MOST = 1.0, 60.0
"""The first pause before a shard is tried again, and the longest; each pause is twice the one before."""
OPINIONS = 2
"""Processes that an image must fail in, alone and beside a good one, before it is blamed."""


@dataclass(frozen=True)
class Trouble:
    """The record of one shard. It is cleared by a commit, and by the checkpoint of a training."""

    kills: int = 0
    """Processes that died while they ran this shard and nothing else."""
    suspect: bool = False
    """Whether a process died while it ran this shard, perhaps among others, or the shard is half of one that killed."""
    half: bool = False
    """Whether it is half of a shard that killed."""
    deaths: int = 0
    """Processes that died while they ran this shard, alone or not."""
    faults: int = 0
    """Exceptions so far."""
    waits: int = 0
    """How often in a row a service did not answer."""
    processes: frozenset[str] = frozenset()
    """The processes that raised them."""
    images: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """The processes in which an image failed alone while a known good one passed, by its position in the shard."""
    failing_seconds: float = 0.0
    """Seconds since the first exception."""

    @classmethod
    def parse(cls, text: str, now: float) -> Trouble:
        """Read the record that `ledger.lua` writes; an empty text is a shard without trouble."""
        found: dict[str, Any] = json.loads(text) if text else {}
        dead: dict[str, str] = found.get("dead", {})
        half = bool(found.get("half"))
        return cls(
            kills=sum(how == "alone" for how in dead.values()),
            suspect=half or bool(dead),
            half=half,
            deaths=len(dead),
            faults=int(found.get("faults", 0)),
            waits=int(found.get("waits", 0)),
            processes=frozenset(found.get("processes", {})),
            images={int(n): frozenset(ids) for n, ids in found.get("images", {}).items()},
            failing_seconds=max(0.0, now - float(found.get("since", now))),
        )

    @property
    def attempts(self) -> int:
        """Number of the next attempt."""
        return 1 + self.deaths + self.faults

    def kills_needed(self, divisible: bool, max_attempts: int) -> int:
        """Return how many kills condemn a shard: to be cut in two, or to an error row if it holds a single item.

        The first death, which only raised the suspicion, is one of `max_attempts`. A half is condemned by one kill,
        but a single item never by fewer than two.
        """
        needed = 1 if self.half else max(1, max_attempts - 1)
        return needed if divisible else max(needed, OPINIONS)

    def pause(self) -> float:
        """Return the seconds to wait after one more failure: exponential, jittered, a minute at most."""
        seconds = min(_FIRST_SECONDS * 2.0 ** min(self.faults + self.waits, 10), _SECONDS_AT_MOST)
        return seconds * random.uniform(0.75, 1.25)
