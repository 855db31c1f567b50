"""Schedules and the records of their ticks, both objects in the bucket.

A tick is decided once: its record, which holds the whole spec of its job, is written only if absent, and the job is
submitted afterwards. Two controllers, a message delivered twice and a restart all find the same decision. It knows no
clock: callers pass the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field

from contract.backend.named_records import NamedRecords
from contract.errors import InvalidSchedule, ObjectNotFound, UnknownSchedule
from contract.jobs.templates import Template
from contract.keys.bucket import SCHEDULES
from contract.keys.schedules import parse_schedule, parse_tick, schedule_record, schedule_tick, schedule_ticks
from contract.records import Record
from contract.suggest import did_you_mean
from contract.times import iso

Missed: TypeAlias = Literal["run", "skip"]

KEPT = 1000
"""Number of tick records to keep for each schedule."""

_STAMP = "%Y%m%dt%H%M"


class Schedule(Record):
    """`schedules/<name>.json`. Ticks up to `since`, when it was added or unpaused, do not count."""

    name: str
    cron: str = Field(description="Minute, hour, day of month, month, day of week.")
    timezone: str = Field(description="IANA time zone in which the cron line is read.")
    missed: Missed = "run"
    paused: bool = False
    created_at: str
    since: str
    template: Template
    owner: str = Field(default="", description="Who may change it; empty: anybody, as before owners were recorded.")

    def runs(self, after: datetime) -> Iterator[datetime]:
        """Yield its ticks after a time."""
        return ticks(self.cron, self.timezone, after)


class Tick(Record):
    """`schedules/<name>/ticks/<stamp>.json`: what was decided about a tick, or that somebody ran it by hand."""

    at: str = Field(description="UTC, ISO 8601.")
    state: Literal["submitted", "skipped", "failed"]
    job: str | None = None
    reason: str | None = Field(default=None, description="Why no job was submitted.")
    missed: int = Field(default=0, description="Earlier ticks that passed during an outage.")
    manual: bool = False
    after: str | None = Field(default=None, description="The segment of a watch that started it with its end.")
    spec: dict[str, Any] | None = Field(
        default=None, description="Spec of the job, so that whoever submits it submits the same one."
    )


# Time


def ticks(cron: str, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield the instants (UTC) at which a cron line fires after a time, with the rules of Debian's cron.

    When clocks go forward, a skipped time of day fires once, right after the gap; when they go back, a repeated one
    fires the first time only. A line with `*` or `*/n` as its minute or hour follows elapsed time through both.
    """
    last = after.astimezone(UTC)
    for found in CronSim(cron, last.astimezone(ZoneInfo(timezone))):
        at = found.astimezone(UTC)
        # Between the two 02:30 of an autumn night the library yields the first one, which is past.
        if at > last:
            last = at
            yield at


def check_cron(cron: str) -> str:
    """Return the cron line with single spaces; raises InvalidSchedule."""
    line = " ".join(cron.split())
    try:
        if len(line.split()) != 5:
            raise CronSimError("It does not have five fields")
        next(CronSim(line, datetime.now(UTC)))
    except CronSimError as error:
        why = str(error)[0].lower() + str(error)[1:]
        raise InvalidSchedule(
            f"{cron!r} is not a cron line ({why}); write minute, hour, day of month, month, day of week, "
            "such as '0 2 * * *'."
        ) from None
    except StopIteration:
        raise InvalidSchedule(f"{cron!r} never fires within 50 years; correct it.") from None
    return line


def check_timezone(name: str) -> str:
    """Return the name of a time zone; raises InvalidSchedule with the nearest names."""
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # a folder of zones, such as `Europe`, is an OSError
        hint = did_you_mean(name, available_timezones(), cutoff=0.6, otherwise="write it as in Europe/Paris.")
        raise InvalidSchedule(f"There is no time zone {name!r}; {hint}") from None
    return name


# Names


def stamp(at: datetime) -> str:
    """Return a tick as part of a key: UTC, to the minute."""
    return at.astimezone(UTC).strftime(_STAMP)


def job_id(name: str, at: datetime) -> str:
    """Return the id of the job of a tick, the same for whoever submits it."""
    return f"{name}-{stamp(at)}"


class Schedules(NamedRecords[Schedule]):
    """The schedules of one bucket, and the records of their ticks."""

    record = Schedule
    noun, commands = "schedule", "imagemill schedule"
    first = "`imagemill schedule add --help` shows how to add one."
    invalid, unknown = InvalidSchedule, UnknownSchedule
    longest = 32  # a job's id, with a suffix such as `-manual-20261124t101502-7f3a09`, stays within 63 characters
    prefix = SCHEDULES
    key, parse = staticmethod(schedule_record), staticmethod(parse_schedule)

    def own(self, name: str, owner: str) -> Schedule:
        """Make `owner` the owner of a schedule and of the models that it will train; raises what `get` raises."""
        found = self.get(name)
        if found.owner == owner:
            return found
        return self.change(found, owner=owner, template=found.template.taken_over(owner))

    def remove(self, name: str, owner: str) -> None:
        """Remove a schedule and the records of its ticks; its jobs stay. Raises UnknownSchedule and NotOwner."""
        super().remove(name, owner)
        for entry in list(self._store.list(schedule_ticks(name))):
            self._store.delete(entry.key)

    # Ticks

    def decide(self, name: str, at: datetime, tick: Tick) -> Tick:
        """Write the decision about a tick; return the earlier one if somebody else was faster."""
        key = schedule_tick(name, stamp(at))
        if self._store.put_if_absent(key, tick.to_json()):
            return tick
        return Tick.model_validate_json(self._store.get(key))

    def correct(self, name: str, at: datetime, tick: Tick) -> None:
        """Overwrite the decision about a tick."""
        self._store.put(schedule_tick(name, stamp(at)), tick.to_json())

    def by_hand(self, name: str, id: str, now: datetime, tick: Tick) -> None:
        """Record a run by hand, in its place among the ticks."""
        self._store.put(schedule_tick(name, id.removeprefix(f"{name}-manual-") + "-manual"), tick.to_json())

    def after(self, name: str, tick: Tick) -> str:
        """Record what the end of a watch's segment started, and return its place among the ticks. It is safe to do
        twice."""
        place = f"{to_time(tick.at):%Y%m%dt%H%M%S}-after-{tick.after}"
        self._store.put(schedule_tick(name, place), tick.to_json())
        return place

    def last(self, name: str) -> tuple[datetime, Tick] | None:
        """Return the newest decided tick, None if there is none."""
        for key in reversed(self._tick_keys(name)):
            found = parse_tick(key)
            tick = self._tick(key) if found else None
            if found and tick:
                return datetime.strptime(found, _STAMP).replace(tzinfo=UTC), tick
        return None

    def history(self, name: str, limit: int) -> list[Tick]:
        """Return the newest ticks and runs by hand, newest first."""
        newest = (self._tick(key) for key in reversed(self._tick_keys(name)[-limit:]))
        return [tick for tick in newest if tick]

    def prune(self, name: str) -> None:
        """Delete the records of all ticks but the newest `KEPT`."""
        for key in self._tick_keys(name)[:-KEPT]:
            self._store.delete(key)

    def _tick(self, key: str) -> Tick | None:
        """Return a tick, None if it was removed meanwhile."""
        try:
            return Tick.model_validate_json(self._store.get(key))
        except ObjectNotFound:
            return None

    def _tick_keys(self, name: str) -> list[str]:
        return [entry.key for entry in self._store.list(schedule_ticks(name))]


def to_time(text: str) -> datetime:
    """Parse a time in ISO 8601."""
    return datetime.fromisoformat(text)


def to_iso(at: datetime) -> str:
    """Format a time as UTC, ISO 8601 with milliseconds."""
    return iso(at.timestamp()) or ""
