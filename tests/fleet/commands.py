"""What workers cost Redis: connections by `CLIENT LIST`, commands by `INFO commandstats`, processor time.

What clients send and what scripts call is told apart by `MONITOR` only, which slows Redis down.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis


@dataclass(frozen=True)
class Cost:
    """A span of time as Redis saw it; commands count those inside scripts too."""

    seconds: float
    commands: Mapping[str, int]
    cpu_seconds: float
    connections: int
    """At the end, without the one that asks."""

    @property
    def commands_per_second(self) -> float:
        return sum(self.commands.values()) / self.seconds

    @property
    def cores(self) -> float:
        """Part of one core that Redis used."""
        return self.cpu_seconds / self.seconds

    def most(self, workers: int, count: int = 8) -> str:
        """The most frequent commands, a worker-second."""
        top = sorted(self.commands.items(), key=lambda pair: -pair[1])[:count]
        return " ".join(f"{name}={calls / self.seconds / workers:.2f}" for name, calls in top)


class Meter:
    """Measures from its making to `read`, and from then to the next `read`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._before = self._state()

    def read(self) -> Cost:
        """Return what it cost since the last time."""
        then, now = self._before, self._state()
        self._before = now
        commands = {name: calls - then[1].get(name, 0) for name, calls in now[1].items()}
        return Cost(now[0] - then[0], {n: c for n, c in commands.items() if c > 0}, now[2] - then[2], now[3])

    def _state(self) -> tuple[float, dict[str, int], float, int]:
        stats: Any = self._redis.info("commandstats")
        cpu: Any = self._redis.info("cpu")
        clients: Any = self._redis.client_list()
        calls = {name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()}
        ours = ("info", "client|list")
        calls = {name: count for name, count in calls.items() if name not in ours}
        return time.monotonic(), calls, cpu["used_cpu_user"] + cpu["used_cpu_sys"], len(clients) - 1


def sent(redis: Redis, seconds: float) -> tuple[Counter[str], int, float]:
    """Return how often clients sent each command in the next seconds, how many more their scripts called, and for how
    many seconds this looked."""
    found: Counter[str] = Counter()
    with redis.monitor() as monitor:
        inner, began = 0, time.monotonic()
        for row in monitor.listen():
            if row["client_type"] == "lua":
                inner += 1
            else:
                found[row["command"].partition(" ")[0].lower()] += 1
            if (took := time.monotonic() - began) > seconds:
                return found, inner, took
    raise AssertionError("the monitor ended")
