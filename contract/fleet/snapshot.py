"""One look at the whole fleet: workers, queues and jobs, as frozen records.

Whoever shows or scales the fleet reads it here: the autoscaler, the controller's metrics, `top` and `workers`.
`read_fleet` takes two round trips to Redis, with one command for a worker and two for a queue or a job.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from contract.backend.entry import status_of
from contract.backend.ledger import Ledger
from contract.fleet.rates import Rates, counts_images, parse_rates
from contract.jobs.kinds import KINDS
from contract.jobs.numerics import advertised
from contract.jobs.status import ENDED, Shards
from contract.keys.queues import QUEUE_CHECK, QUEUE_GENERATE, WORKER_QUEUES

LONG_SECONDS = 600.0
"""Assumed slot seconds of a shard that is a whole training, evaluation or verification."""
FINISH_SECONDS = 30.0
"""Assumed seconds of finishing a job on a worker: choosing images, writing its page."""
CHECK_SECONDS = 10.0
"""Assumed seconds of checking a pushed model."""


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A live worker, from its heartbeat."""

    name: str
    host: str
    pool: str
    """Its `IMAGEMILL_POOL`."""
    queues: tuple[str, ...]
    slots: int
    """Shards that it runs at once."""
    busy: int
    """Shards that it holds."""
    device: str
    """`cpu` or `cuda`; empty until it says."""
    precisions: tuple[str, ...]
    models: tuple[str, ...]
    """Loaded models."""
    rate: float
    """Images per second over the last minute."""
    since: float
    """When it started, in seconds since the epoch."""
    draining: bool
    """Whether it takes nothing new and will end."""
    unfit: str
    """Why it takes nothing, or empty."""
    memory: int | None = None
    """GiB of its device that models may use; None until it says."""
    runtimes: tuple[str, ...] = ()
    """What may run its classifiers; empty until it says."""
    rule: str = ""
    """Which models it loads, in words: `models fashion-*; no programs (…)`; empty: any."""

    @property
    def serves(self) -> bool:
        """Whether it takes new shards."""
        return not self.draining and not self.unfit


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job that has not ended."""

    id: str
    owner: str
    kind: str
    queue: str
    priority: str
    state: str
    model: str
    items: int
    """Images planned so far."""
    done: int
    """Images that have a row, those of running shards included."""
    errors: int
    shards: Shards
    """`queued` counts all shards that wait for a slot."""
    max_slots: int
    """Shards that run at once, at most; 0: any number."""
    held_back: bool = False
    """Whether its owner holds as many slots of the queue as one owner may."""
    copies: int = 0
    """Running shards of which a second worker runs a copy, which takes a slot too."""
    images_per_second: float
    waiting_for: str = ""
    """What no live worker has and the job needs; empty if some worker can run it."""
    waiting_seconds: float
    """How long its shards have waited since a worker last took one; 0 if none waits."""
    backlog_seconds: float
    """Slot seconds of what is left, by the rates of the live workers."""

    @property
    def runnable_shards(self) -> int:
        """Shards that free slots could take now."""
        if self.held_back:
            return 0
        busy = self.shards.running + self.copies
        room = self.max_slots - busy if self.max_slots else self.shards.queued
        return max(0, min(room, self.shards.queued))

    @property
    def backlog_images(self) -> int:
        """Images planned and not done."""
        return max(0, self.items - self.done)


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """What waits on a queue, and who serves it."""

    queue: str
    backlog_images: int
    backlog_seconds: float
    """Slot seconds of everything that is left, what runs now included."""
    runnable_shards: int
    """Shards that a free slot could take, and other tasks that wait."""
    running_shards: int
    """Shards under a lease."""
    copies: int = 0
    """Second copies of them that run too."""
    slots: int
    """Slots of the live workers that take new shards. One that serves several queues counts in each."""
    workers: int
    oldest_waiting_seconds: float
    messages: int
    """Messages in the queue's list, which says nothing of the backlog: most are tickets."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Everything at one moment."""

    at: float
    """When, in seconds since the epoch, by Redis' clock."""
    workers: tuple[WorkerState, ...]
    queues: tuple[QueueState, ...]
    jobs: tuple[JobState, ...]
    rates: Rates

    def queue(self, name: str) -> QueueState:
        """Return the state of a queue; raises KeyError for one that no worker may serve."""
        for one in self.queues:
            if one.queue == name:
                return one
        raise KeyError(name)


def read_fleet(ledger: Ledger) -> Fleet:
    """Return the fleet as it is now; raises RedisUnavailable."""
    keys, broker = ledger.keys, ledger.keys.broker_prefix
    with ledger.pipeline() as pipe:
        pipe.time()
        pipe.smembers(keys.active)
        pipe.smembers(keys.workers)
        pipe.hgetall(keys.rates)
        for queue in WORKER_QUEUES:
            pipe.llen(f"{broker}{queue}")
            pipe.smembers(f"{keys.dispatch[1]}{queue}:parked")
        (seconds, micros), active, names, measured, *more = pipe.execute()
    lengths, capped = more[::2], dict(zip(WORKER_QUEUES, more[1::2], strict=True))
    now, ids, names = seconds + micros / 1e6, sorted(active), sorted(names)

    with ledger.pipeline() as pipe:
        for name in names:
            pipe.hgetall(keys.worker(name))
        for id in ids:
            job, _, leases, *_ = keys.job(id)
            pipe.hgetall(job)
            pipe.hvals(leases)
        answers: list[Any] = pipe.execute()
    beats = answers[: len(names)]
    alive = (worker_state(name, beat) for name, beat in zip(names, beats, strict=True) if beat)
    workers = tuple(worker for worker in alive if set(worker.queues) & set(WORKER_QUEUES))  # controllers beat too
    rates = parse_rates(measured)
    jobs = tuple(
        job_state(fields, held, now, workers, rates, capped)
        for fields, held in _pairs(answers[len(names) :])
        if fields.get("kind") in KINDS and fields["state"] not in ENDED
    )
    messages = dict(zip(WORKER_QUEUES, lengths, strict=True))
    queues = tuple(queue_state(queue, jobs, workers, messages[queue]) for queue in WORKER_QUEUES)
    return Fleet(at=now, workers=workers, queues=queues, jobs=jobs, rates=rates)


def worker_state(name: str, fields: Mapping[str, str]) -> WorkerState:
    """Return a worker by its heartbeat; what an earlier version does not say has a plain default."""
    can = advertised(fields)
    return WorkerState(
        name=name,
        host=fields.get("host", ""),
        pool=fields.get("pool", "default"),
        queues=_words(fields.get("queues", "")),
        slots=int(fields.get("slots", "1")),
        busy=int(fields.get("shards", "0")),
        device=fields.get("device_kind", ""),
        precisions=_words(fields.get("precisions", "")),
        models=_words(fields.get("models", "")),
        rate=float(fields.get("rate", "0")),
        since=float(fields.get("started_at", "0")),
        draining=fields.get("draining", "") not in ("", "0"),
        unfit=fields.get("unfit", ""),
        memory=can.memory if can else None,
        runtimes=can.runtimes if can else (),
        rule=str(can.rule) if can else "",
    )


def job_state(
    fields: Mapping[str, str],
    held: Sequence[str],
    now: float,
    workers: Iterable[WorkerState],
    rates: Rates,
    capped: Mapping[str, Container[str]] = MappingProxyType({}),
) -> JobState:
    """Return a job by its ledger entry and its leases. `capped`: the owners, by queue, that may hold no more slots."""
    status = status_of(fields, held, now)
    kind = KINDS[status.kind]
    over = status.state == "finalizing" or fields.get("over_budget") == "1"
    waiting = 0 if over else max(0, status.shards.total - status.shards.done - status.shards.running)
    items = int(fields.get("items", 0))
    if over:
        left = 0.0
    elif counts_images(kind.name):
        left = max(0, items - status.done) / slot_rate(kind.name, status.model, kind.queue, workers, rates)
    else:
        left = (waiting + status.shards.running) * LONG_SECONDS
    return JobState(
        id=status.id,
        owner=fields.get("owner", ""),
        kind=kind.name,
        queue=kind.queue,
        priority=fields.get("priority", "normal"),
        state=status.state,
        model=status.model,
        items=items,
        done=status.done,
        errors=status.errors,
        shards=status.shards.model_copy(update={"queued": waiting}),
        max_slots=status.max_slots,
        held_back=fields.get("owner", "") in capped.get(kind.queue, ()),
        copies=0 if over else int(fields.get("copies", 0)),
        images_per_second=status.images_per_second or 0.0,
        waiting_for=status.waiting_for or "",
        waiting_seconds=max(0.0, now - float(fields.get("waits_since", now))) if waiting else 0.0,
        backlog_seconds=left,
    )


def queue_state(queue: str, jobs: Iterable[JobState], workers: Iterable[WorkerState], messages: int) -> QueueState:
    """Return the state of a queue by the jobs that wait on it and the workers that serve it.

    Tasks that are no shards count too: a job that a worker must finish, and each check of a pushed model.
    """
    everything = tuple(jobs)
    ours = [job for job in everything if job.queue == queue]
    serving = [worker for worker in workers if queue in worker.queues and worker.serves]
    tasks, seconds = 0, 0.0
    if queue == QUEUE_GENERATE:
        tasks = sum(job.state == "finalizing" and KINDS[job.kind].page == "with the job" for job in everything)
        seconds = tasks * FINISH_SECONDS
    elif queue == QUEUE_CHECK:
        tasks, seconds = messages, messages * CHECK_SECONDS
    return QueueState(
        queue=queue,
        backlog_images=sum(job.backlog_images for job in ours),
        backlog_seconds=seconds + sum(job.backlog_seconds for job in ours),
        runnable_shards=tasks + sum(job.runnable_shards for job in ours),
        running_shards=sum(job.shards.running for job in ours),
        copies=sum(job.copies for job in ours),
        slots=sum(worker.slots for worker in serving),
        workers=len(serving),
        oldest_waiting_seconds=max((job.waiting_seconds for job in ours), default=0.0),
        messages=messages,
    )


def slot_rate(kind: str, model: str, queue: str, workers: Iterable[WorkerState], rates: Rates) -> float:
    """Return the images per second of the average live slot of a queue; of a CPU while none is live."""
    serving = [worker for worker in workers if queue in worker.queues and worker.serves]
    slots = sum(worker.slots for worker in serving)
    if not slots:
        return rates.of(kind, model, "cpu").images_per_second
    speed = sum(worker.slots * rates.of(kind, model, worker.device or "cpu").images_per_second for worker in serving)
    return speed / slots


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _pairs(answers: Sequence[Any]) -> list[tuple[dict[str, str], list[str]]]:
    return list(zip(answers[::2], answers[1::2], strict=True))
