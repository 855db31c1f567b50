"""Fires what is due: each tick of each schedule becomes one job, whoever looks, however often.

The bucket decides. Redis remembers only how far each schedule is, so that a round that has nothing to do reads one
object a schedule; when Redis was wiped, the newest record in the bucket says it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile

from contract.errors import (
    DatasetBusy,
    ImagemillError,
    JobConflict,
    NothingMissing,
    NotOwner,
    ServiceUnavailable,
    UnknownDataset,
    UnknownSchedule,
)
from contract.instruments import SCHEDULE_DELAY_SECONDS, SCHEDULE_TICKS
from contract.jobs.lifecycle import Backend, submit
from contract.jobs.schedules import Schedule, Schedules, Tick, job_id, stamp, to_iso, to_time
from contract.jobs.specs import parse_spec
from contract.jobs.templates import fill
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from contract.web.webhooks.notes import note_tick

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Due:
    """A due tick; `missed` earlier ticks passed while everything was down."""

    at: datetime
    missed: int = 0
    run: bool = True


def utc_now() -> datetime:
    """Return the time by this machine's clock."""
    return datetime.now(UTC)


def fire(backend: Backend, settings: Settings, now: datetime) -> None:
    """Fire every tick up to `now`. A faulty schedule does not affect the others."""
    schedules = Schedules(backend.store)
    for name in schedules.names():
        try:
            _fire(backend, schedules, name, now, outage_seconds(settings))
        except UnknownSchedule:  # removed since it was listed
            backend.ledger.forget_schedule(name)
        except ImagemillError as error:
            log.warning("The schedule %s waits for the next round: %s", name, error)
        except Exception:
            log.exception("The schedule %s waits for the next round", name)


def outage_seconds(settings: Settings) -> float:
    """Return how late a tick must be to count as missed: longer than a restart or a few rounds take."""
    return max(120.0, 3 * settings.reconcile_seconds)


def due(schedule: Schedule, last: datetime, now: datetime, outage: float) -> list[Due]:
    """Return the due ticks after `last`, oldest first.

    If the first is more than `outage` seconds late, everything was down: then the newest tick stands for all of them.
    It runs, or, under `skip`, runs only if it is not late itself.
    """
    # A list is enough: a year of minutes takes 4 s.
    found = list(takewhile(lambda at: at <= now, schedule.runs(last)))
    if not found or (now - found[0]).total_seconds() <= outage:
        return [Due(at) for at in found]
    newest = found[-1]
    run = schedule.missed == "run" or (now - newest).total_seconds() <= outage
    return [Due(newest, missed=len(found) - 1, run=run)]


def _fire(backend: Backend, schedules: Schedules, name: str, now: datetime, outage: float) -> None:
    schedule = schedules.get(name)
    if schedule.paused:
        return
    known = backend.ledger.last_tick(name)
    last = _recover(backend, schedules, schedule) if known is None else datetime.fromtimestamp(known, UTC)
    last = max(last or to_time(schedule.since), to_time(schedule.since))
    found = due(schedule, last, now, outage)
    for tick in found:
        decided = schedules.decide(name, tick.at, _decision(backend, schedule, tick, now))
        _carry_out(backend, schedules, schedule, tick.at, decided)
        _tell(backend, schedule, tick.at, decided)
        # Last: after a death before this line the same tick is due again, and already decided.
        backend.ledger.set_last_tick(name, tick.at.timestamp())
        SCHEDULE_TICKS.add(1, decided.state)
    if found:
        schedules.prune(name)
    elif known is None:
        backend.ledger.set_last_tick(name, last.timestamp())


def _recover(backend: Backend, schedules: Schedules, schedule: Schedule) -> datetime | None:
    """Return the last tick in the bucket, after starting its job, which may have been decided and not begun."""
    newest = schedules.last(schedule.name)
    if newest is None:
        return None
    at, tick = newest
    _carry_out(backend, schedules, schedule, at, tick)
    _tell(backend, schedule, at, tick)
    return at


def _decision(backend: Backend, schedule: Schedule, tick: Due, now: datetime) -> Tick:
    at = to_iso(tick.at)
    if not tick.run:
        late = round((now - tick.at).total_seconds() / 60)
        reason = f"It came due during an outage and was noticed {late:,} min late; the schedule skips missed ticks."
        return Tick(at=at, state="skipped", reason=reason, missed=tick.missed)
    id = job_id(schedule.name, tick.at)
    try:
        spec = fill(schedule.template, id=id, store=backend.store, at=tick.at)
    except (ServiceUnavailable, DatasetBusy):
        raise  # the next round tries again
    except NothingMissing as error:
        return Tick(at=at, state="skipped", reason=str(error), missed=tick.missed)
    except ImagemillError as error:
        log.warning("The tick %s of %s makes no job: %s", at, schedule.name, error)
        return Tick(at=at, state="failed", reason=str(error), missed=tick.missed)
    return Tick(at=at, state="submitted", job=id, missed=tick.missed, spec=spec.model_dump(mode="json"))


def _tell(backend: Backend, schedule: Schedule, at: datetime, tick: Tick) -> None:
    """Have webhooks told of a tick, unless it was skipped."""
    if tick.state != "skipped":
        note_tick(backend.store, schedule.name, stamp(at), schedule.template.spec.get("webhook"))


def _carry_out(backend: Backend, schedules: Schedules, schedule: Schedule, at: datetime, tick: Tick) -> None:
    """Submit the job of a tick, unless it was submitted before."""
    if tick.state != "submitted":
        return
    try:
        fresh = submit(backend, parse_spec(tick.spec), schedule.owner)
    except DatasetBusy:
        raise  # somebody submitted another job in between
    except (JobConflict, NotOwner, UnknownDataset) as error:
        reason = str(error)
        if backend.store.exists(JobKeys(str(tick.job)).spec):
            reason = f"The id {tick.job} belongs to another job; `imagemill show {tick.job}` shows it."
        log.warning("The tick %s of %s makes no job: %s", tick.at, schedule.name, reason)
        schedules.correct(schedule.name, at, Tick(at=tick.at, state="failed", reason=reason, missed=tick.missed))
    else:
        if fresh:
            SCHEDULE_DELAY_SECONDS.observe(max(0.0, (utc_now() - at).total_seconds()))
            log.info("The tick %s of %s is the job %s", tick.at, schedule.name, tick.job)
