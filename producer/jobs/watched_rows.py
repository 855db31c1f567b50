"""The rows of a watch as they are committed: segment by segment, each committed shard once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, ObjectNotFound
from contract.jobs import results
from contract.jobs.commits import iter_listed, read_commit
from contract.jobs.ends import read_end
from contract.jobs.results import Row
from contract.keys.jobs import JobKeys
from contract.watches.record import Watch
from contract.watches.segments import read_segment, segment_numbers

_POLL_SECONDS = 0.2
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass
class _Open:
    """A segment that may get more rows."""

    number: int
    job: str
    read: set[int] = field(default_factory=set)


def parse_time(text: str, now: datetime | None = None, *, option: str = "--since") -> datetime:
    """Return the time in `2026-11-26T08:00` (UTC unless it says another zone) or `15m`, which is so long ago.

    Raises InvalidInput, which names `option`.
    """
    if match := _AGO.fullmatch(text.strip()):
        return (now or datetime.now(UTC)) - timedelta(**{_UNITS[match[2]]: float(match[1])})
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidInput(
            f"{option} {text!r} is no time; write it as 2026-11-26T08:00, or as 15m for so long ago."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def rows(
    store: ObjectStore,
    watch: Watch,
    *,
    since: datetime | None = None,
    follow: bool = False,
    stop: threading.Event | None = None,
    seconds: float = _POLL_SECONDS,
) -> Iterator[Row]:
    """Yield the rows of a watch that are committed, those planned at `since` or later.

    With `follow`, go on with what is committed until `stop` is set, and look again after so many `seconds`. Shards are
    committed in any order, so rows are not sorted by time; each row comes once.
    """
    stop = stop or threading.Event()
    known: set[int] = set()
    under_way: list[_Open] = []
    while not stop.is_set():
        numbers = [number for number in segment_numbers(store, watch.root) if number not in known]
        segments = [read_segment(store, watch.root, number) for number in numbers]
        known.update(numbers)
        for place, segment in enumerate(segments):
            closed = segments[place + 1].opened_at if place + 1 < len(segments) else None
            past = since is not None and closed is not None and datetime.fromisoformat(closed) < since
            if segment.job and not past:
                under_way.append(_Open(segment.number, segment.job))
        for one in list(under_way):
            # Asked first: what is committed before the end is listed after it.
            ended = _ended(store, one, newest=one.number == max(known))
            yield from _new(store, one, since, stop)
            if ended:
                under_way.remove(one)
        if not follow:
            return
        stop.wait(seconds)


def _ended(store: ObjectStore, segment: _Open, *, newest: bool) -> bool:
    """Return whether a segment gets no more rows; the job of the newest may not have been submitted yet."""
    if store.exists(JobKeys(segment.job).active):
        return False
    return not newest or read_end(store, segment.job) is not None


def _new(store: ObjectStore, segment: _Open, since: datetime | None, stop: threading.Event) -> Iterator[Row]:
    """Yield the rows of shards that were committed since the last call."""
    for found in iter_listed(store, segment.job):
        if stop.is_set():
            return
        if found.shard in segment.read:
            continue
        try:
            commit = read_commit(store, segment.job, found.shard, found.retry)
            table = results.committed(store, commit) if commit.output is not None else None
        except ObjectNotFound:
            continue  # replaced by a retry just now; the next round finds that
        segment.read.add(found.shard)
        for row in table.to_pylist() if table is not None else ():
            if since is None or row["planned_at"] >= since:
                yield row
