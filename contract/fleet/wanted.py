"""How many workers a pool should have: one pure function, which the embedded stack, `/scale` and the simulator call.

It asks how much is left to do, in slot seconds, not how many messages wait. Workers are added until everything left
would be done within a target. They are taken away when slots have had nothing to do for a while, and not before: as
long as every slot is busy, fewer workers cost as much and take longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from contract.errors import InvalidInput
from contract.fleet.snapshot import Fleet
from contract.keys.queues import QUEUE_TRAIN, WORKER_QUEUES

USUAL_SLOTS = 3
"""Slots of a worker until one was seen: a core more than the two of a small machine."""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a pool is scaled. Raises InvalidInput for values that contradict each other."""

    pool: str = "default"
    queues: tuple[str, ...] = WORKER_QUEUES
    """What its workers serve. Two pools on one queue each answer for all of it."""
    least: int = 0
    """Fewest workers; 0 lets the pool go to zero when nothing waits and no shard is leased."""
    most: int = 10
    target_seconds: float = 300.0
    """Time in which everything left should be done, cold starts included."""
    cold_start_seconds: float = 120.0
    """Time from asking for a worker to its first shard."""
    cool_down_seconds: float = 120.0
    """How long slots must have been idle before workers are taken away. As long as a cold start, so that waiting costs
    at most twice what knowing the future would (the ski rental problem)."""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise InvalidInput(
                f"At least {self.least} and at most {self.most} workers is no range; choose 0 ≤ min ≤ max and max ≥ 1."
            )
        if not self.target_seconds > 0 or self.cold_start_seconds < 0 or self.cool_down_seconds < 0:
            raise InvalidInput("The target must be more than 0 s, cold start and cool-down at least 0 s.")
        if unknown := sorted(set(self.queues) - set(WORKER_QUEUES)):
            raise InvalidInput(f"There is no queue {unknown[0]!r}; workers serve {', '.join(WORKER_QUEUES)}.")

    @property
    def working_seconds(self) -> float:
        """What a worker that is asked for now works of the target; at least a quarter of it."""
        return max(self.target_seconds - self.cold_start_seconds, self.target_seconds / 4)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The answer, and what the next one must know of it."""

    workers: int
    why: str
    """For people: what decided."""
    live: int
    """Workers of the pool that take shards."""
    backlog_images: int
    backlog_seconds: float
    """Slot seconds."""
    at: float
    """When it was decided, in seconds since the epoch."""
    slots: int
    """Slots of a worker of this pool, as last seen."""
    idle_since: float | None = None
    """Since when fewer workers would do; None if all are needed."""
    idle_peak: int = 0
    """The most workers that were needed since then."""


def wanted(fleet: Fleet, policy: Policy, previous: Wanted | None = None) -> Wanted:
    """Return how many workers `policy` wants now, after it wanted `previous`.

    Without a previous answer the live workers of the pool stand for it. The result is never outside `least` to `most`,
    and at least 1 while a shard of the pool's queues is leased.
    """
    queues = [fleet.queue(name) for name in policy.queues]
    ours = [worker for worker in fleet.workers if worker.pool == policy.pool and worker.serves]
    slots = previous.slots if previous else USUAL_SLOTS
    if ours:
        slots = max(1, round(sum(worker.slots for worker in ours) / len(ours)))
    before = len(ours) if previous is None else previous.workers

    useful, seconds = 0.0, 0.0
    for queue in queues:
        at_once = 1 if queue.queue == QUEUE_TRAIN else slots  # one training, however many slots
        busy = (queue.runnable_shards + queue.running_shards) / at_once
        useful += busy
        seconds += min(queue.backlog_seconds / at_once, busy * policy.target_seconds)
    most_busy, fast = _ceil(useful), _fast_enough(seconds, policy, len(ours))
    needed = min(most_busy, max(fast, before))
    # A message without a shard is a page that somebody asked for, or a ticket that a live worker takes off at once.
    if any(queue.running_shards or queue.messages for queue in queues):
        needed = max(needed, 1)

    idle_since, idle_peak = None, 0
    count, why = needed, _why(needed, fast, before)
    if needed < before:
        held = previous is not None and previous.idle_since is not None
        idle_since = previous.idle_since if previous and held else fleet.at
        idle_peak = max(needed, previous.idle_peak if previous and held else 0)
        assert idle_since is not None
        if fleet.at - idle_since < policy.cool_down_seconds:
            count = before
            why = f"{before - needed} of {before} have been idle for {fleet.at - idle_since:.0f} s"
        else:
            count, why = idle_peak, f"at most {idle_peak} had work for {policy.cool_down_seconds:.0f} s"
            # What was needed at the peak may be over since: the next look starts from now.
            idle_since, idle_peak = (fleet.at, needed) if needed < idle_peak else (None, 0)
    bounded = min(policy.most, max(policy.least, count))
    if bounded != count:
        why += f"; the pool has {policy.least} to {policy.most}"
    return Wanted(
        workers=bounded,
        why=why,
        live=len(ours),
        backlog_images=sum(queue.backlog_images for queue in queues),
        backlog_seconds=sum(queue.backlog_seconds for queue in queues),
        at=fleet.at,
        slots=slots,
        idle_since=idle_since,
        idle_peak=idle_peak,
    )


def _fast_enough(seconds: float, policy: Policy, live: int) -> int:
    """Return how many workers do `seconds` of one worker's work in time; those not live yet have to start first."""
    rest = seconds - live * policy.target_seconds
    if rest <= 0:
        return _ceil(seconds / policy.target_seconds)
    return live + _ceil(rest / policy.working_seconds)


def _ceil(count: float) -> int:
    return math.ceil(count - _ROUNDING)


def _why(needed: int, fast: int, before: int) -> str:
    if not needed:
        return "nothing waits"
    if needed < max(fast, before):
        return f"{needed} have a shard for each of their slots"
    return f"{fast} are done within the target" if fast > before else "all are busy"
