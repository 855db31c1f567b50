"""Schedules as a user sees them: adds, pauses and runs them, and reports on each tick.

It fires no tick; `worker.control.fire_schedules` does, on the controller.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Literal

from pydantic import Field

from contract.errors import RedisUnavailable, UnknownJob
from contract.jobs import lifecycle
from contract.jobs.lifecycle import Backend
from contract.jobs.schedules import (
    Missed,
    Schedule,
    Schedules,
    Tick,
    check_cron,
    check_timezone,
    to_iso,
)
from contract.jobs.status import State, Status
from contract.jobs.templates import Template, fill
from contract.records import Record

_THREADS = 8
_NEXT = 3

StatusOf = Callable[[str], Status]


class Run(Record):
    """A tick and its job, as `imagemill schedule history --json` prints it. Times are UTC, ISO 8601."""

    tick: str = Field(description="When the run was due, or when somebody asked for it.")
    job: str | None = Field(default=None, description="Its job; null if none was made.")
    state: State | Literal["skipped", "unknown"] = Field(
        description="State of the job. Without a job, `skipped` or `failed`; `unknown` if the bucket has no such job."
    )
    reason: str | None = Field(default=None, description="Why it failed or was skipped, in one sentence.")
    missed: int = Field(default=0, description="Earlier ticks that passed during an outage.")
    manual: bool = Field(default=False, description="Whether somebody ran it by hand.")
    after: str | None = Field(default=None, description="The segment of a watch that started it with its end.")


class Scheduled(Record):
    """A schedule with its next ticks and its last run, as `imagemill schedule list --json` prints it."""

    name: str = Field(description="Name of the schedule, up to 32 characters.")
    cron: str = Field(description="The cron line.")
    timezone: str = Field(description="Time zone in which the line is read.")
    missed: Missed = Field(description="What to do about ticks missed during an outage: `run` or `skip`.")
    paused: bool = Field(description="Whether ticks pass without a job.")
    kind: str = Field(description="Kind of its jobs.")
    model: str = Field(description="The model as typed; each job pins the version of its tick.")
    source: str = Field(description="The source, as typed.")
    created_at: str = Field(description="When the schedule was added.")
    owner: str = Field("", description="Who may change it; empty: anybody.")
    next: tuple[str, ...] = Field(description="The next three ticks; empty while the schedule is paused.")
    last: Run | None = Field(default=None, description="The newest run, as in the history; null before the first.")


def new_schedule(
    name: str,
    template: Template,
    *,
    cron: str,
    timezone: str,
    missed: Missed,
    owner: str = "",
    now: datetime | None = None,
) -> Schedule:
    """Return a schedule that starts `now`; raises InvalidSchedule for an invalid name, cron line or time zone."""
    begins = to_iso(now or datetime.now(UTC))
    return Schedule(
        name=Schedules.check_name(name),
        cron=check_cron(cron),
        timezone=check_timezone(timezone),
        missed=missed,
        created_at=begins,
        since=begins,
        template=template,
        owner=owner,
    )


def pause(backend: Backend, name: str, owner: str) -> Schedule:
    """Let ticks pass without a job; raises UnknownSchedule and NotOwner."""
    schedules = Schedules(backend.store)
    return schedules.change(schedules.owned(name, owner), paused=True)


def unpause(backend: Backend, name: str, owner: str) -> Schedule:
    """Submit jobs at ticks again, without catching up on the missed ones; raises UnknownSchedule and NotOwner."""
    schedules = Schedules(backend.store)
    found = schedules.owned(name, owner)
    # A schedule that is not paused stays as it is: a tick due right now would be forgotten.
    return schedules.change(found, paused=False, since=to_iso(datetime.now(UTC))) if found.paused else found


def remove(backend: Backend, name: str, owner: str) -> None:
    """Remove a schedule and its history; its jobs stay. Raises UnknownSchedule and NotOwner."""
    Schedules(backend.store).remove(name, owner)
    # The entry in Redis means nothing without the object, and a new schedule of this name replaces it.
    with suppress(RedisUnavailable):
        backend.ledger.forget_schedule(name)


def run(backend: Backend, name: str) -> str:
    """Submit the job of a schedule now, paused or not, return its id. Raises UnknownSchedule, and what `fill` does."""
    schedules, now = Schedules(backend.store), datetime.now(UTC)
    schedule = schedules.get(name)
    id = f"{name}-manual-{now:%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"
    spec = fill(schedule.template, id=id, store=backend.store, at=now)
    schedules.by_hand(name, id, now, Tick(at=to_iso(now), state="submitted", job=id, manual=True))
    lifecycle.submit(backend, spec, schedule.owner)
    return id


def overview(backend: Backend, names: list[str], status_of: StatusOf) -> list[Scheduled]:
    """Return these schedules with their next ticks and their last run."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda name: _overview(backend, name, status_of), names))


def history(backend: Backend, name: str, limit: int, status_of: StatusOf) -> list[Run]:
    """Return the newest runs of a schedule, newest first; raises UnknownSchedule."""
    schedules = Schedules(backend.store)
    schedules.get(name)
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda tick: _run(tick, status_of), schedules.history(name, limit)))


def _overview(backend: Backend, name: str, status_of: StatusOf) -> Scheduled:
    schedules = Schedules(backend.store)
    schedule = schedules.get(name)
    template = schedule.template
    coming = () if schedule.paused else islice(schedule.runs(datetime.now(UTC)), _NEXT)
    newest = schedules.history(name, 1)
    return Scheduled(
        name=name,
        cron=schedule.cron,
        timezone=schedule.timezone,
        missed=schedule.missed,
        paused=schedule.paused,
        kind=template.kind,
        model=template.model,
        source=template.source,
        created_at=schedule.created_at,
        owner=schedule.owner,
        next=tuple(to_iso(at) for at in coming),
        last=_run(newest[0], status_of) if newest else None,
    )


def _run(tick: Tick, status_of: StatusOf) -> Run:
    known = {"tick": tick.at, "job": tick.job, "missed": tick.missed, "manual": tick.manual, "after": tick.after}
    if tick.state != "submitted" or tick.job is None:
        return Run.model_validate({**known, "state": tick.state, "reason": tick.reason})
    try:
        status = status_of(tick.job)
    except UnknownJob:
        return Run.model_validate({**known, "state": "unknown", "reason": f"{tick.job} is not in the bucket."})
    return Run.model_validate({**known, "state": status.state, "reason": status.reason})
