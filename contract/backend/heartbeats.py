"""Heartbeats of workers and of the clock, and up to which tick each schedule is processed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from contract.backend.redis_client import RedisClient


@dataclass(frozen=True)
class Worker:
    """A worker's last heartbeat."""

    name: str
    fields: Mapping[str, str]


class Heartbeats(RedisClient):
    """Who is alive. Each heartbeat expires by itself, so that nobody has to notice a death."""

    def beat(self, worker: str, seconds: float, **fields: Any) -> str | None:
        """Record a worker's heartbeat, which expires after `seconds`; return the process that is asked to drain."""
        with self._mapped():
            pipe = self.redis.pipeline(transaction=False)
            pipe.hset(self.keys.worker(worker), mapping=cast("Mapping[Any, Any]", fields))
            pipe.pexpire(self.keys.worker(worker), int(seconds * 1000))
            pipe.sadd(self.keys.workers, worker)
            pipe.get(self.keys.drain(worker))
            return cast("str | None", pipe.execute()[-1])

    def leave(self, worker: str) -> None:
        with self._mapped():
            self.redis.delete(self.keys.worker(worker))
            self.redis.srem(self.keys.workers, worker)

    def workers(self) -> list[Worker]:
        """Return the workers that are alive, by name."""
        with self._mapped():
            names = sorted(cast("set[str]", self.redis.smembers(self.keys.workers)))
            pipe = self.redis.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self.keys.worker(name))
            rows = dict(zip(names, cast("list[dict[str, str]]", pipe.execute()), strict=True))
            if gone := [name for name in names if not rows[name]]:
                self.redis.srem(self.keys.workers, *gone)  # a heartbeat brings the name back
        return [Worker(name, row) for name, row in rows.items() if row]

    def ticked(self, seconds: float) -> None:
        """Record the clock's heartbeat, which expires after `seconds`."""
        with self._mapped():
            self.redis.set(self.keys.clock, f"{time.time():.3f}", px=int(seconds * 1000))

    def last_round(self) -> float | None:
        """Return when the clock last ticked, in seconds since the epoch, or None if that was long ago."""
        with self._mapped():
            return float(cast("str | None", self.redis.get(self.keys.clock)) or 0) or None

    def ticking(self) -> bool:
        """Return whether a clock is running."""
        with self._mapped():
            return bool(self.redis.exists(self.keys.clock))

    def last_tick(self, schedule: str) -> float | None:
        """Return the time of a schedule's last processed tick, in seconds, or None if it is not known here."""
        with self._mapped():
            return self.redis.zscore(self.keys.schedules, schedule)

    def set_last_tick(self, schedule: str, seconds: float) -> None:
        """Record that every tick up to this one is processed; an older time than the recorded one is ignored."""
        with self._mapped():
            self.redis.zadd(self.keys.schedules, {schedule: seconds}, gt=True)

    def forget_schedule(self, schedule: str) -> None:
        """Delete what is known of a schedule."""
        with self._mapped():
            self.redis.zrem(self.keys.schedules, schedule)
