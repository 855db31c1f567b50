"""Builds a frame of `imagemill top` from a `Fleet`, as a picture or as JSON; reads nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from contract.fleet.snapshot import Fleet, JobState, QueueState, WorkerState
from contract.printable import printable
from producer.cli.common import duration
from producer.cli.workers import NUMBERS, rules, state, table

_WIDE = 120
"""Columns from which on everything is shown; below, ids are shortened and less telling columns are left out."""
_SHORT_ID = 18
_NAMED = 3
"""Jobs that no worker can run of which a frame says what they wait for."""
PROBLEM = "bold red"


def frame(fleet: Fleet, width: int, max_lines: int | None = None) -> RenderableType:
    """Return a picture of the fleet for a terminal of `width` columns; of at most about `max_lines` lines, if given."""
    wide = width >= _WIDE
    jobs = sorted(fleet.jobs, key=lambda job: (not job.shards.running, -job.waiting_seconds, job.id))
    workers = sorted(fleet.workers, key=lambda worker: (worker.serves, worker.name))
    said = [
        Text(summary(fleet), style="bold"),
        *(Text(text, style=PROBLEM) for text in (*_unserved(fleet), *_unmet(fleet))),
    ]
    parts: list[RenderableType] = [*said]
    if jobs or workers:
        parts += [Text(), _queues(fleet.queues, wide)]
    lines = sum(len(text) // width + 1 for text in said)
    # What the terminal leaves for jobs and workers: each gets half, and what the other does not need.
    ruled = rules(workers)[:_NAMED]
    left = 1_000_000 if max_lines is None else max(2, max_lines - lines - len(ruled) - len(fleet.queues) - 8)
    most_jobs = max(left // 2, left - len(workers))
    most_workers = max(left - left // 2, left - len(jobs))
    if jobs:
        parts += [Text(), _jobs(jobs[:most_jobs], wide), *_more(len(jobs) - most_jobs, "imagemill jobs")]
    elif workers:
        parts += [Text(), line("No job waits or runs; `imagemill classify --help` shows how to submit one.")]
    if workers:
        parts += [Text(), _workers(workers[:most_workers], fleet.at, width)]
        parts += _more(len(workers) - most_workers, "imagemill workers")
        parts += map(line, ruled)
    else:
        parts += [Text(), line("No worker is alive; `imagemill up` or `imagemill-worker run` starts one.")]
    return Group(*parts)


def summary(fleet: Fleet) -> str:
    """Return the fleet in one line: `2 workers, 3 of 6 slots busy, 41.0 images/s, 1,200 images left, 30 s`."""
    count = len(fleet.workers)
    images = sum(queue.backlog_images for queue in fleet.queues)
    busy, slots = sum(worker.busy for worker in fleet.workers), sum(worker.slots for worker in fleet.workers)
    facts = [
        f"{count:,} worker{'' if count == 1 else 's'}",
        f"{busy:,} of {slots:,} slots busy",
        f"{sum(worker.rate for worker in fleet.workers):,.1f} images/s",
        f"{images:,} images left",
    ]
    if any(queue.backlog_seconds for queue in fleet.queues):
        facts.append(_fleet_left(fleet))
    return ", ".join(facts)


def as_object(fleet: Fleet) -> dict[str, Any]:
    """Return a frame as JSON: the records of the fleet, and each worker's state as `imagemill workers` prints it."""
    return {
        "at": fleet.at,
        "workers": [{**asdict(worker), "state": state(worker)} for worker in fleet.workers],
        "queues": [asdict(queue) for queue in fleet.queues],
        "jobs": [{**asdict(job), "shards": job.shards.model_dump()} for job in fleet.jobs],
    }


def _fleet_left(fleet: Fleet) -> str:
    """Return how long everything takes: by the busiest queue, or by all slots together if that is longer."""
    loaded = [queue for queue in fleet.queues if queue.backlog_seconds]
    if any(not queue.slots for queue in loaded):
        return "some of them without a worker"
    slots = sum(worker.slots for worker in fleet.workers if worker.serves)
    each = max(queue.backlog_seconds / queue.slots for queue in loaded)
    return f"about {duration(max(each, sum(queue.backlog_seconds for queue in loaded) / slots))}"


def _unserved(fleet: Fleet) -> list[str]:
    """Say on which queues something waits that no worker takes."""
    return [
        f"{queue.runnable_shards:,} wait{'s' * (queue.runnable_shards == 1)} on the queue {queue.queue}, which no "
        f"worker takes; start one with `imagemill-worker run --queues {queue.queue}`."
        for queue in fleet.queues
        if queue.runnable_shards and not queue.slots
    ]


def _unmet(fleet: Fleet) -> list[str]:
    """Say which jobs no live worker can run, and what they wait for."""
    waiting = [job for job in fleet.jobs if job.waiting_for and fleet.queue(job.queue).slots]
    said = [printable(f"{job.id} waits for {job.waiting_for}.") for job in waiting[:_NAMED]]
    if more := len(waiting) - len(said):
        said.append(f"{more:,} more wait for a worker that can run them; see `imagemill jobs`.")
    return said


def _queues(queues: Sequence[QueueState], wide: bool) -> Table:
    numbers = ("WAITING", "RUNNING", "IMAGES", "OLDEST", "WORKERS", "SLOTS", "LEFT")
    table = _table(("QUEUE", *numbers), numbers, wide)
    for queue in queues:
        left = duration(queue.backlog_seconds / queue.slots) if queue.slots else "no worker"
        cells = (
            queue.queue,
            f"{queue.runnable_shards:,}",
            f"{queue.running_shards:,}",
            f"{queue.backlog_images:,}",
            duration(queue.oldest_waiting_seconds) if queue.oldest_waiting_seconds else "-",
            f"{queue.workers:,}",
            f"{queue.slots:,}",
            left if queue.backlog_seconds else "-",
        )
        table.add_row(*map(line, cells), style="" if queue.backlog_seconds or queue.runnable_shards else "dim")
    return table


def _jobs(jobs: Sequence[JobState], wide: bool) -> Table:
    more = ("KIND", "PRIORITY", "MODEL") if wide else ()
    table = _table(
        ("JOB", *more, "STATE", "", "DONE", "FAILED", "RATE", "LEFT"), ("DONE", "FAILED", "RATE", "LEFT"), wide
    )
    for job in jobs:
        counted = job.items and job.state != "planning"
        speed = job.images_per_second
        table.add_row(
            line(job.id if wide else _short(job.id)),
            *(map(line, (job.kind, job.priority, job.model or "-")) if wide else ()),
            line(job.state),
            ProgressBar(total=job.items, completed=min(job.done, job.items), width=20 if wide else 6)
            if counted
            else line("-"),
            line(f"{job.done:,}/{f'{job.items:,}' if counted else '?'}"),
            line(f"{job.errors:,}", "red" if job.errors else ""),
            line(f"{speed:,.1f}" if speed else "-"),
            line(duration(job.backlog_images / speed) if counted and speed else "-"),
        )
    return table


def _workers(workers: Sequence[WorkerState], now: float, width: int) -> Table:
    names, rows = table(workers, now, width)
    drawn = _table(names, NUMBERS, width >= _WIDE)
    for worker, cells in zip(workers, rows, strict=True):
        drawn.add_row(*map(line, cells), style="" if worker.serves else "yellow")
    return drawn


def _table(headings: Sequence[str], right: Sequence[str], wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0), header_style="bold")
    for n, name in enumerate(headings):
        # Only these give way where the terminal is too narrow.
        gives_way = n == 0 or name in ("POOL", "HOST", "QUEUES", "MODELS", "MODEL", "TAKES") or name == headings[-1]
        table.add_column(name, justify="right" if name in right else "left", no_wrap=not gives_way)
    return table


def line(text: str, style: str = "") -> Text:
    """Return one line of plain text; what does not fit ends in an ellipsis, and markup stays text."""
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def _short(id: str) -> str:
    """Leave out the middle of a long id: its beginning names the kind, its end tells it from others."""
    return id if len(id) <= _SHORT_ID else f"{id[: _SHORT_ID - 10]}…{id[-9:]}"


def _more(count: int, command: str) -> list[Text]:
    return [line(f"and {count:,} more; `{command}` lists all", "dim")] if count > 0 else []
