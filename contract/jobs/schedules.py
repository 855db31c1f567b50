"""Schedules: what is to run when, and what became of each tick. Both are objects in the bucket.

A tick is decided once: its record is written only where there is none, with the whole spec of its job, and the job is
begun after it. So two controllers, a message that comes twice and a restart all find the same decision. It knows no
clock: whoever asks says what time it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, ValidationError

from contract import keys
from contract.backend.ledger import iso
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSchedule, ObjectNotFound, UnknownSchedule
from contract.jobs.templates import Template
from contract.records import Record
from contract.suggest import did_you_mean

Missed: TypeAlias = Literal["run", "skip"]

KEPT = 1000
"""Records of ticks that stay, of each schedule."""

# With what stands behind it, `-manual-20261124t101502-7f3a`, a job id stays within its 63 characters.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_STAMP = "%Y%m%dt%H%M"


class Schedule(Record):
    """`schedules/<name>.json`. Ticks up to `since` do not count: it was made, or unpaused, then."""

    name: str
    cron: str = Field(description="Minute, hour, day of month, month, day of week.")
    timezone: str = Field(description="Of the IANA database; the cron line is read on a clock there.")
    missed: Missed = "run"
    paused: bool = False
    created_at: str
    since: str
    template: Template

    def runs(self, after: datetime) -> Iterator[datetime]:
        """Its ticks after a time."""
        return ticks(self.cron, self.timezone, after)


class Tick(Record):
    """`schedules/<name>/ticks/<stamp>.json`: what was decided about a tick, or that somebody ran it by hand."""

    at: str = Field(description="UTC, ISO 8601.")
    state: Literal["submitted", "skipped", "failed"]
    job: str | None = None
    reason: str | None = Field(default=None, description="Why no job was made.")
    missed: int = Field(default=0, description="Ticks before it that passed while everything was down.")
    manual: bool = False
    spec: dict[str, Any] | None = Field(
        default=None, description="Of the job, so that whoever begins it begins the same."
    )


# Time


def ticks(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """The instants, UTC, that a cron line names after a time, as Debian's cron has them.

    Where clocks go forward, a time of day that is left out runs once, right after the gap; where they go back, it
    runs the first time only. A line with `*` or `*/n` as its minute or its hour goes by elapsed time through both.
    """
    last = after.astimezone(UTC)
    for found in CronSim(cron, last.astimezone(ZoneInfo(timezone))):
        at = found.astimezone(UTC)
        # Between the two 02:30 of an autumn night the library gives the first one, which is over.
        if at > last:
            last = at
            yield at


def check_name(name: str) -> str:
    """The name, where a schedule can have it; raises InvalidSchedule."""
    if not _NAME.fullmatch(name):
        raise InvalidSchedule(
            f"{name!r} is no name of a schedule; use up to 32 of a-z, 0-9 and -, a letter or digit first."
        )
    return name


def check_cron(cron: str) -> str:
    """The cron line with single spaces; raises InvalidSchedule."""
    line = " ".join(cron.split())
    try:
        if len(line.split()) != 5:
            raise CronSimError("It has not five fields")
        next(CronSim(line, datetime.now(UTC)))
    except CronSimError as error:
        why = str(error)[0].lower() + str(error)[1:]
        raise InvalidSchedule(
            f"{cron!r} is no cron line ({why}); write minute, hour, day of month, month, day of week, "
            "such as '0 2 * * *'."
        ) from None
    except StopIteration:
        raise InvalidSchedule(f"{cron!r} names no day within 50 years; correct it.") from None
    return line


def check_timezone(name: str) -> str:
    """The name of a time zone; raises InvalidSchedule with the nearest names."""
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # a folder of zones, such as `Europe`, is an OSError
        hint = did_you_mean(name, available_timezones(), cutoff=0.6, otherwise="write it as in Europe/Paris.")
        raise InvalidSchedule(f"There is no time zone {name!r}; {hint}") from None
    return name


# Names


def stamp(at: datetime) -> str:
    """A tick as part of a key: UTC, to the minute."""
    return at.astimezone(UTC).strftime(_STAMP)


def job_id(name: str, at: datetime) -> str:
    """The id of the job of a tick; there is one, whoever makes it."""
    return f"{name}-{stamp(at)}"


class Schedules:
    """The schedules of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def names(self) -> list[str]:
        """Of every schedule, sorted."""
        entries = self._store.list(keys.SCHEDULES, folders=True)
        return sorted(found for found in (keys.parse_schedule(entry.key) for entry in entries) if found)

    def get(self, name: str) -> Schedule:
        """A schedule; raises UnknownSchedule with the nearest names, InvalidSchedule where it cannot be read."""
        try:
            data = self._store.get(keys.schedule_record(check_name(name)))
        except (InvalidSchedule, ObjectNotFound):
            raise UnknownSchedule(self._unknown(name)) from None
        try:
            return Schedule.model_validate_json(data)
        except ValidationError as error:
            raise InvalidSchedule(
                f"The schedule {name} cannot be read by this version of Imagemill; remove it and add it again."
            ) from error

    def add(self, schedule: Schedule) -> None:
        """Write a new schedule; raises InvalidSchedule where the name is taken."""
        key, data = keys.schedule_record(schedule.name), schedule.to_json()
        # A write whose answer was lost is ours all the same.
        if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
            raise InvalidSchedule(
                f"There is a schedule {schedule.name!r} already; choose another name, or "
                f"`imagemill schedule remove {schedule.name}` first."
            )

    def put(self, schedule: Schedule) -> None:
        """Write a schedule anew."""
        self._store.put(keys.schedule_record(schedule.name), schedule.to_json())

    def remove(self, name: str) -> None:
        """Remove a schedule and the records of its ticks; its jobs stay. Raises UnknownSchedule."""
        if name not in self.names():
            raise UnknownSchedule(self._unknown(name))
        self._store.delete(keys.schedule_record(name))
        for entry in list(self._store.list(keys.schedule_ticks(name))):
            self._store.delete(entry.key)

    # Ticks

    def decide(self, name: str, at: datetime, tick: Tick) -> Tick:
        """Write what becomes of a tick; what was decided already, where somebody was faster."""
        key = keys.schedule_tick(name, stamp(at))
        if self._store.put_if_absent(key, tick.to_json()):
            return tick
        return Tick.model_validate_json(self._store.get(key))

    def correct(self, name: str, at: datetime, tick: Tick) -> None:
        """Write anew what became of a tick."""
        self._store.put(keys.schedule_tick(name, stamp(at)), tick.to_json())

    def by_hand(self, name: str, id: str, now: datetime, tick: Tick) -> None:
        """Write down a run by hand, between the ticks that it came between."""
        self._store.put(keys.schedule_tick(name, id.removeprefix(f"{name}-manual-") + "-manual"), tick.to_json())

    def last(self, name: str) -> tuple[datetime, Tick] | None:
        """The newest tick that was decided; None where none was."""
        for key in reversed(self._tick_keys(name)):
            found = keys.parse_tick(key)
            tick = self._read(key) if found else None
            if found and tick:
                return datetime.strptime(found, _STAMP).replace(tzinfo=UTC), tick
        return None

    def history(self, name: str, limit: int) -> list[Tick]:
        """The newest ticks and runs by hand, newest first."""
        newest = (self._read(key) for key in reversed(self._tick_keys(name)[-limit:]))
        return [tick for tick in newest if tick]

    def prune(self, name: str) -> None:
        """Delete the records of all ticks but the newest `KEPT`."""
        for key in self._tick_keys(name)[:-KEPT]:
            self._store.delete(key)

    def _read(self, key: str) -> Tick | None:
        """What was decided; None where it went meanwhile."""
        try:
            return Tick.model_validate_json(self._store.get(key))
        except ObjectNotFound:
            return None

    def _tick_keys(self, name: str) -> list[str]:
        return [entry.key for entry in self._store.list(keys.schedule_ticks(name))]

    def _unknown(self, name: str) -> str:
        known = self.names()
        if not known:
            return (
                f"There is no schedule {name!r}, nor any other; `imagemill schedule add --help` shows how to make one."
            )
        return f"There is no schedule {name!r}; {did_you_mean(name, known)} `imagemill schedule list` shows all."


def to_time(text: str) -> datetime:
    """A time from its ISO 8601."""
    return datetime.fromisoformat(text)


def to_iso(at: datetime) -> str:
    """UTC, ISO 8601 with milliseconds."""
    return iso(at.timestamp()) or ""
