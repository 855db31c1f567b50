"""Answers how many workers each pool should have: `/scale/<pool>` of the controller, and its metrics.

The answer of a pool is one JSON object, of which KEDA's metrics-api scaler reads `wanted` (target 1, AverageValue):

    {"pool": "default", "wanted": 3, "live": 2, "min": 0, "max": 10, "backlog_images": 41000,
     "backlog_seconds": 820.0, "why": "3 are done within the target", "at": 1764136800.123}

What the policy must remember between two answers lies in Redis, so that any controller can give the next one. It is
disposable: without it, the live workers stand for the last answer.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from contract.backend.ledger import Ledger
from contract.errors import InvalidInput
from contract.fleet.pools import read_pools
from contract.fleet.snapshot import Fleet, read_fleet
from contract.fleet.wanted import Policy, Wanted, wanted
from contract.settings import Settings

_KEEP_SECONDS = 3600
"""An answer older than this says nothing of the next one."""


class Scale:
    """Scales the pools of `IMAGEMILL_POOLS`; raises InvalidSettings if it cannot be read."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self.policies = read_pools(settings)

    def answer(self, pool: str) -> dict[str, Any]:
        """Return the JSON of `/scale/<pool>`; raises InvalidInput for an unknown pool, and RedisUnavailable."""
        if (policy := self.policies.get(pool)) is None:
            raise InvalidInput(f"There is no pool {pool!r}; IMAGEMILL_POOLS names {', '.join(self.policies)}.")
        found = self._decide(policy, read_fleet(self._ledger))
        return {
            "pool": pool,
            "wanted": found.workers,
            "live": found.live,
            "min": policy.least,
            "max": policy.most,
            "backlog_images": found.backlog_images,
            "backlog_seconds": round(found.backlog_seconds, 1),
            "why": found.why,
            "at": round(found.at, 3),
        }

    def wanted(self, fleet: Fleet) -> dict[str, int]:
        """Return how many workers each pool should have, for a fleet that was just read; raises RedisUnavailable."""
        return {pool: self._decide(policy, fleet).workers for pool, policy in self.policies.items()}

    def _decide(self, policy: Policy, fleet: Fleet) -> Wanted:
        key = self._ledger.keys.scale(policy.pool)
        found = wanted(fleet, policy, _parse(self._ledger.value(key)))
        self._ledger.set_value(key, json.dumps(asdict(found)), _KEEP_SECONDS)
        return found


def _parse(text: str | None) -> Wanted | None:
    """Return an earlier answer; None for one that is not ours, such as that of another version."""
    try:
        return Wanted(**json.loads(text)) if text else None
    except (TypeError, ValueError):
        return None
