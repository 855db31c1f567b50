"""Object keys of schedules."""

from __future__ import annotations

import re

from contract.keys.bucket import SCHEDULES
from contract.keys.names import record_name

_TICK = re.compile(r"/ticks/(\d{8}t\d{4})\.json$")


def schedule_record(name: str) -> str:
    """A schedule: cron line, time zone, and the job's spec with models as typed."""
    return f"{SCHEDULES}{name}.json"


def parse_schedule(key: str) -> str | None:
    """The schedule whose record this is, or None."""
    return record_name(SCHEDULES, key)


def schedule_ticks(name: str) -> str:
    """Prefix of what became of each tick."""
    return f"{SCHEDULES}{name}/ticks/"


def schedule_tick(name: str, stamp: str) -> str:
    """Decision about a tick, with the spec of its job; the last 1,000 are kept."""
    return f"{schedule_ticks(name)}{stamp}.json"


def parse_tick(key: str) -> str | None:
    """The stamp of the tick that an object key names; None for a run by hand."""
    match = _TICK.search(key)
    return match[1] if match else None
