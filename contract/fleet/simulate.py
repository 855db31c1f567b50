"""Plays a trace of jobs against a policy of scaling: no servers, no clock, no chance, the same figures every time.

    trace → events (arrivals, looks, starts, ends of shards, evictions) → Fleet → policy → autoscaler → workers

What stands between policy and workers is Kubernetes' horizontal autoscaler as KEDA drives it, for every policy the
same: a look every 15 s, a tolerance of 10 %, at most a doubling or four more a look, one worker as soon as something
waits, none after a cool-down.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from contract.fleet.rates import Rates, prior, rate_field
from contract.fleet.scalers import ByQueueLength, ByWanted, Scaler
from contract.fleet.snapshot import Fleet, QueueState, WorkerState
from contract.fleet.trace import Trace
from contract.keys.queues import QUEUE_CLASSIFY, WORKER_QUEUES

LOOK_SECONDS = 15.0
"""The horizontal autoscaler's sync period."""
TOLERANCE = 0.1
"""It leaves the count alone where the metric differs by no more than this share."""
LAPSE_SECONDS = 40.0
"""Until the shards of a worker that vanished run again: a lease and a tick."""
_MODEL = "m@1"
_HORIZON = 86_400.0


@dataclass(frozen=True)
class Sample:
    """One look."""

    at: float
    workers: int
    """Number of workers, including those that are starting."""
    busy_slots: int
    backlog_images: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a policy made of a trace."""

    trace: str
    policy: str
    minutes: float
    """Until the last image was done."""
    pod_hours: float
    """From asking for each worker to its end, cold starts and idle times included."""
    busy_share: float
    """Slot time spent on shards that counted."""
    worst_wait_minutes: float
    """The longest that a job waited for its first shard to start."""
    slowest_job_minutes: float
    """The longest from submission to the last image of a job."""
    most_workers: int
    shards_again: int
    """Shards that ran once more, after an eviction or a worker that was taken away."""
    turns: int
    """How often the number of workers changed its direction."""
    samples: tuple[Sample, ...] = field(repr=False)

    def figures(self) -> dict[str, float | int | str]:
        """Return everything but the samples."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "samples"}


def simulate(trace: Trace, scaler: Scaler | None = None) -> Outcome:
    """Return what a policy, by default `wanted`, makes of a trace."""
    return _Run(trace, scaler or ByWanted(trace.policy)).outcome()


def compare(trace: Trace) -> list[Outcome]:
    """Return what `wanted` and queue length make of a trace."""
    return [simulate(trace), simulate(trace, ByQueueLength())]


@dataclass
class _Job:
    submitted: float
    images: int
    waiting: deque[int]
    """Sizes of the shards that wait."""
    running: int = 0
    left: int = 0
    """Shards not done."""
    started: float | None = None
    ended: float | None = None


@dataclass
class _Worker:
    number: int
    asked: float
    ready: float
    draining: bool = False
    gone: float | None = None
    runs: dict[int, tuple[float, float, _Job, int]] = field(default_factory=dict)
    """By number: when it began, when it ends, its job and its size."""


class _Run:
    """One simulation. Events of the same time are served in the order in which they were made."""

    def __init__(self, trace: Trace, scaler: Scaler) -> None:
        self.trace, self.scaler = trace, scaler
        self.now, self.measured = 0.0, False
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.made = 0
        self.jobs: list[_Job] = []
        self.turn: deque[_Job] = deque()
        self.workers: list[_Worker] = []
        self.all_workers: list[_Worker] = []
        self.samples: list[Sample] = []
        self.answers: deque[tuple[float, int]] = deque()
        self.active_at = -math.inf
        self.worked = 0.0
        self.again = 0
        self.to_come = 0
        for arrival in trace.jobs:
            for n in range(arrival.times):
                self.to_come += 1
                self.at(arrival.at + n * arrival.every, lambda images=arrival.images: self.arrive(images))  # type: ignore[misc]
        for eviction in trace.evictions:
            self.at(eviction.at, lambda count=eviction.workers: self.evict(count))  # type: ignore[misc]
        self.at(0.0, self.look)
        for _ in range(trace.least):
            self.add_worker(0.0)

    def outcome(self) -> Outcome:
        while self.events and self.now < _HORIZON:
            self.now, _, happen = heapq.heappop(self.events)
            happen()
            self.dispatch()
        pod_seconds = sum((w.gone if w.gone is not None else self.now) - w.asked for w in self.all_workers)
        steps = [b.workers - a.workers for a, b in pairwise(self.samples)]
        moves = [step > 0 for step in steps if step]
        return Outcome(
            trace=self.trace.name,
            policy=self.scaler.name,
            minutes=round(max(self.ended(job) for job in self.jobs) / 60, 1),
            pod_hours=round(pod_seconds / 3600, 1),
            busy_share=round(self.worked / (pod_seconds * self.trace.slots), 2) if pod_seconds else 0.0,
            worst_wait_minutes=round(max(self.started(job) - job.submitted for job in self.jobs) / 60, 1),
            slowest_job_minutes=round(max(self.ended(job) - job.submitted for job in self.jobs) / 60, 1),
            most_workers=max(sample.workers for sample in self.samples),
            shards_again=self.again,
            turns=sum(a != b for a, b in pairwise(moves)),
            samples=tuple(self.samples),
        )

    def ended(self, job: _Job) -> float:
        return self.now if job.ended is None else job.ended

    def started(self, job: _Job) -> float:
        return self.now if job.started is None else job.started

    # Events

    def at(self, time: float, happen: Callable[[], None]) -> None:
        self.made += 1
        heapq.heappush(self.events, (time, self.made, happen))

    def arrive(self, images: int) -> None:
        whole, rest = divmod(images, self.trace.shard_size)
        sizes = deque([self.trace.shard_size] * whole + ([rest] if rest else []))
        job = _Job(self.now, images, sizes, left=len(sizes))
        self.jobs.append(job)
        self.turn.append(job)
        self.to_come -= 1

    def look(self) -> None:
        fleet = self.fleet()
        self.scale(self.scaler.metric(fleet), fleet.queue(QUEUE_CLASSIFY).messages > 0)
        backlog, busy = fleet.queue(QUEUE_CLASSIFY).backlog_images, sum(len(w.runs) for w in self.workers)
        self.samples.append(Sample(self.now, len(self.workers), busy, backlog))
        open_jobs = self.to_come or any(job.ended is None for job in self.jobs)
        if open_jobs or len(self.workers) > self.trace.least:
            self.at(self.now + LOOK_SECONDS, self.look)

    def evict(self, count: int) -> None:
        for worker in self.workers[:count]:
            lost = [(job, size) for _, _, job, size in worker.runs.values()]
            self.remove(worker)
            self.at(self.now + LAPSE_SECONDS, lambda lost=lost: self.give_back(lost))  # type: ignore[misc]

    def finish(self, worker: _Worker, number: int) -> None:
        if number not in worker.runs:
            return  # it was lost with its worker, or handed back
        began, _, job, _ = worker.runs.pop(number)
        self.measured = True
        self.worked += self.now - began
        job.running -= 1
        job.left -= 1
        if not job.left:
            job.ended = self.now
        if worker.draining and not worker.runs:
            self.remove(worker)

    def give_back(self, shards: list[tuple[_Job, int]]) -> None:
        for job, size in shards:
            self.again += 1
            job.running -= 1
            job.waiting.appendleft(size)
            if job not in self.turn:
                self.turn.append(job)

    def leave(self, worker: _Worker) -> None:
        """End the grace of a worker that is taken away: what it runs goes back at once."""
        if worker.gone is None:
            shards = [(job, size) for _, _, job, size in worker.runs.values()]
            self.remove(worker)
            self.give_back(shards)

    # Workers

    def add_worker(self, cold_start: float) -> None:
        worker = _Worker(len(self.all_workers), self.now, self.now + cold_start)
        self.workers.append(worker)
        self.all_workers.append(worker)
        self.at(worker.ready, lambda: None)  # so that it is given shards then

    def remove(self, worker: _Worker) -> None:
        worker.gone = self.now
        worker.runs.clear()
        if worker in self.workers:
            self.workers.remove(worker)

    def scale(self, metric: float, something_waits: bool) -> None:
        """Follow a metric as the horizontal autoscaler and KEDA do."""
        staying = [worker for worker in self.workers if not worker.draining]
        count, asked = len(staying), math.ceil(metric)
        if something_waits or metric:
            self.active_at = self.now
        self.answers.append((self.now, asked))
        while self.answers[0][0] < self.now - self.scaler.stabilisation_seconds:
            self.answers.popleft()
        if not count:
            new = 1 if asked or something_waits else 0
        elif not metric:
            new = max(answer for _, answer in self.answers)
            new = max(1, min(count, new)) if self.now - self.active_at < self.scaler.zero_seconds else 0
        elif abs(metric / count - 1) <= TOLERANCE:
            new = count
        elif asked > count:
            new = min(asked, max(2 * count, count + 4))
        else:
            new = min(count, max(1, *(answer for _, answer in self.answers)))
        new = min(self.trace.most, max(self.trace.least, new))
        for _ in range(new - count):
            self.add_worker(self.trace.cold_start_seconds)
        # Drain workers that are not ready first, then the youngest, as a ReplicaSet does: it cannot see who is idle.
        for worker in sorted(staying, key=lambda w: (-w.ready, -w.number))[: max(0, count - new)]:
            worker.draining = True
            if worker.runs:
                self.at(self.now + self.trace.grace_seconds, lambda worker=worker: self.leave(worker))  # type: ignore[misc]
            else:
                self.remove(worker)

    def dispatch(self) -> None:
        """Give each free slot a shard, of each job in turn."""
        for worker in self.workers:
            if worker.ready > self.now or worker.draining:
                continue
            while len(worker.runs) < self.trace.slots and self.turn:
                job = self.turn.popleft()
                if not job.waiting:
                    continue
                self.turn.append(job)
                size = job.waiting.popleft()
                job.running += 1
                job.started = self.now if job.started is None else job.started
                ends = self.now + size / self.trace.images_per_second
                self.made += 1
                number = self.made
                worker.runs[number] = (self.now, ends, job, size)
                self.at(ends, lambda worker=worker, number=number: self.finish(worker, number))  # type: ignore[misc]
            if not self.turn:
                return

    def fleet(self) -> Fleet:
        """Return what `read_fleet` would."""
        open_jobs = [job for job in self.jobs if job.ended is None]
        running = [run for worker in self.workers for run in worker.runs.values()]
        images = sum(sum(job.waiting) for job in open_jobs) + sum(
            math.ceil(size * (ends - self.now) / (ends - began)) for began, ends, _, size in running
        )
        in_list = sum(min(len(job.waiting), self.trace.window - job.running) for job in open_jobs)
        live = [worker for worker in self.workers if worker.ready <= self.now and not worker.draining]
        rates = {rate_field("classify", _MODEL, "cpu"): self.trace.images_per_second} if self.measured else {}
        rate = self.trace.images_per_second if self.measured else prior("classify", "cpu")
        queues = [_nothing(queue) for queue in WORKER_QUEUES if queue != QUEUE_CLASSIFY]
        busy = QueueState(
            queue=QUEUE_CLASSIFY,
            backlog_images=images,
            backlog_seconds=images / rate,
            runnable_shards=sum(len(job.waiting) for job in open_jobs),
            running_shards=len(running),
            slots=len(live) * self.trace.slots,
            workers=len(live),
            oldest_waiting_seconds=max((self.now - job.submitted for job in open_jobs if job.waiting), default=0.0),
            messages=max(0, in_list),
        )
        states = tuple(
            WorkerState(
                name=f"worker-{worker.number}",
                host="",
                pool="default",
                queues=(QUEUE_CLASSIFY,),
                slots=self.trace.slots,
                busy=len(worker.runs),
                device="cpu",
                precisions=(),
                models=(),
                rate=0.0,
                since=worker.asked,
                draining=False,
                unfit="",
            )
            for worker in live
        )
        return Fleet(at=self.now, workers=states, queues=(busy, *queues), jobs=(), rates=Rates(rates))


def _nothing(queue: str) -> QueueState:
    return QueueState(
        queue=queue,
        backlog_images=0,
        backlog_seconds=0.0,
        runnable_shards=0,
        running_shards=0,
        slots=0,
        workers=0,
        oldest_waiting_seconds=0.0,
        messages=0,
    )
