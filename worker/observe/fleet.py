"""The controller's gauges of the whole fleet, read from Redis every few seconds, whoever asks.

A scrape reads what was seen last, so that nobody can make Redis work by asking for a page.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from contract import instruments
from contract.backend.ledger import Ledger
from contract.fleet.snapshot import Fleet, JobState, WorkerState, read_fleet
from contract.telemetry.meters import Gauge
from contract.watches.state import WatchState, read_states

Labels = tuple[str, ...]

_AFTERWARDS = {
    instruments.WATCH_TABLE_WAITING_SEGMENTS: "table_waiting",
    instruments.WATCH_ARCHIVE_WAITING_SEGMENTS: "archive_waiting",
    instruments.WATCH_ARCHIVED_IMAGES: "archived",
}
"""What each shows of a `WatchState`."""


class FleetWatch:
    """What the controller last saw of the fleet; `look` looks again, and shows it."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._clock = ledger, clock
        self.fleet: Fleet | None = None
        """What was seen last; None before the first look that succeeded."""
        self._seen_at = self._ticked_at = clock()
        self._tick: float | None = None
        self._standing: dict[str, tuple[tuple[Any, ...], float]] = {}
        self._shown: dict[Gauge, set[Labels]] = {}
        self._also: list[Callable[[Fleet], None]] = []

    def also(self, show: Callable[[Fleet], None]) -> None:
        """Call `show` with each fleet that was seen."""
        self._also.append(show)

    def look(self) -> None:
        """Read the fleet and show it; raises RedisUnavailable."""
        fleet, info, ticked = read_fleet(self._ledger), self._ledger.info(), self._ledger.last_round()
        self.fleet, self._seen_at = fleet, self._clock()
        if ticked is not None and ticked != self._tick:
            # By the clock of this process: the time that stands there is another machine's.
            self._tick, self._ticked_at = ticked, self._clock() - max(0.0, fleet.at - ticked)
        self._show(fleet)
        self.show_watches(fleet, read_states(self._ledger).values())
        _show_redis(info)
        for show in self._also:
            show(fleet)

    def refresh(self) -> None:
        """Set the gauges that grow by themselves, before a scrape."""
        instruments.FLEET_AGE_SECONDS.set(self._clock() - self._seen_at)
        instruments.RECONCILE_AGE_SECONDS.set(self._clock() - self._ticked_at)

    def _show(self, fleet: Fleet) -> None:
        for queue in fleet.queues:
            name = queue.queue
            instruments.BACKLOG_IMAGES.set(queue.backlog_images, name)
            instruments.BACKLOG_SECONDS.set(queue.backlog_seconds, name)
            instruments.RUNNABLE_SHARDS.set(queue.runnable_shards, name)
            instruments.RUNNING_SHARDS.set(queue.running_shards, name)
            instruments.SPECULATIVE_SHARDS.set(queue.copies, name)
            instruments.SLOTS.set(queue.slots, name)
            instruments.OLDEST_WAITING_SECONDS.set(queue.oldest_waiting_seconds, name)
            instruments.QUEUE_MESSAGES.set(queue.messages, name)
        self._set(instruments.WORKERS, Counter((worker.pool, _state(worker)) for worker in fleet.workers))
        self._set(instruments.JOBS, Counter((job.kind, job.state) for job in fleet.jobs))
        shards: Counter[Labels] = Counter()
        for job in fleet.jobs:
            for state, number in (
                ("queued", job.shards.queued),
                ("running", job.shards.running),
                ("done", job.shards.done),
            ):
                shards[job.kind, state] += number
        self._set(instruments.SHARDS, shards)
        self._set(instruments.JOB_IDLE_SECONDS, self._idle(fleet.jobs))

    def _set(self, gauge: Gauge, values: Mapping[Labels, float]) -> None:
        """Set a gauge to these values, and to 0 where it had another before."""
        shown = self._shown.setdefault(gauge, set())
        shown.update(values)
        for labels in shown:
            gauge.set(values.get(labels, 0), *labels)

    def show_watches(self, fleet: Fleet, states: Iterable[WatchState]) -> None:
        """Show how far each watch is behind, and its table and its archive."""
        known = list(states)
        left = {job.id: job.backlog_images for job in fleet.jobs}
        lag, unplanned, uncommitted = dict[Labels, float](), dict[Labels, float](), dict[Labels, float]()
        for state in known:
            lag[state.name,] = state.lag(fleet.at)
            unplanned[state.name,] = state.pending
            uncommitted[state.name,] = sum(left.get(job, 0) for job in state.jobs)
        self._set(instruments.WATCH_LAG_SECONDS, lag)
        self._set(instruments.WATCH_UNPLANNED_IMAGES, unplanned)
        self._set(instruments.WATCH_UNCOMMITTED_IMAGES, uncommitted)
        for gauge, name in _AFTERWARDS.items():
            self._set(gauge, {(state.name,): getattr(state, name) for state in known})

    def _idle(self, jobs: Iterable[JobState]) -> dict[Labels, float]:
        """Return for how long the job of each kind that stood still longest has made no progress, in seconds."""
        now, longest, standing = self._clock(), dict[Labels, float](), dict[str, tuple[tuple[Any, ...], float]]()
        for job in jobs:
            if job.state == "planning" and job.shards.total == job.shards.done:
                continue  # it waits for more to do; a watch's job does for an hour
            mark = (job.state, job.items, job.done, job.shards.total, job.shards.done)
            before = self._standing.get(job.id)
            since = before[1] if before is not None and before[0] == mark else now
            standing[job.id] = mark, since
            longest[job.kind,] = max(longest.get((job.kind,), 0.0), now - since)
        self._standing = standing
        return longest


def _state(worker: WorkerState) -> str:
    return "draining" if worker.draining else "unfit" if worker.unfit else "serving"


def _show_redis(info: Mapping[str, Any]) -> None:
    instruments.REDIS_MEMORY_BYTES.set(float(info.get("used_memory", 0)))
    limit = float(info.get("maxmemory", 0)) or float(info.get("total_system_memory", 0))
    instruments.REDIS_MEMORY_LIMIT_BYTES.set(limit)
    instruments.REDIS_CLIENTS.set(float(info.get("connected_clients", 0)))
