"""Lists jobs a page at a time, from the index in the bucket: no page costs more because there are more jobs."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile

from contract.errors import InvalidInput, ObjectNotFound, RedisUnavailable, UnknownJob
from contract.jobs import index, lifecycle
from contract.jobs.commits import in_parallel
from contract.jobs.ends import read_standing
from contract.jobs.lifecycle import Backend
from contract.jobs.status import Status
from contract.keys.index import ENDED, ended_before, parse_ended
from contract.keys.jobs import JobKeys
from producer.jobs.following import listed_status, status
from producer.jobs.status_from_bucket import status_from_bucket

log = logging.getLogger(__name__)

_THREADS = 8
_AT_ONCE = 32
_MOST_LOOKED = 2000
_AMONG_OTHERS = 250
_MOST_ENDS = 4096
"""Ends that are held; one without labels takes two kilobytes."""
_RECENT_SECONDS = 300.0
_BEHIND_OPEN = re.compile(r"[0-9]{13}-~")
"""Where the ended jobs begin behind a last page of those that had not ended."""
FIRST_ENDED = "ended "
"""The cursor of the first page of jobs that have ended."""


def page(backend: Backend, limit: int, before: str = "") -> list[Status]:
    """Return at most `limit` jobs: first those that have not ended, the newest first, then the others by their ends.

    With `before`, the id of a job that has ended, those that ended before it. Raises UnknownJob for an id that is none.
    """
    found = [] if before else unended(backend)[:limit]
    seen = {one.id for one in found}
    after = _entry(backend, before) if before else ""
    entries = ((id, run) for _, id, run, _ in index.ended(backend.store, after=after) if id not in seen)
    with ThreadPoolExecutor(_THREADS) as pool:
        while len(found) < limit:
            some = [entry for entry, _ in zip(entries, range(limit - len(found)), strict=False)]
            if not some:
                break
            for one in pool.map(partial(_standing, backend), some):
                if one is not None and one.id not in seen:
                    seen.add(one.id)
                    found.append(one)
    return found


@dataclass(frozen=True)
class Listed:
    """A page of jobs, and where the next one begins; an empty `cursor` after the last."""

    jobs: list[Status]
    cursor: str


def listed(
    backend: Backend, limit: int, cursor: str = "", owner: str | None = None, ends: RecentEnds | None = None
) -> Listed:
    """Return a page as `page` orders them, of one owner's jobs if `owner` is given.

    A page looks at `_MOST_LOOKED` ended jobs, so where most are others' it may be short, and not the last. Jobs
    that end while a client pages keep the position that they had on the first page, so each is on one of them.
    The cursor `FIRST_ENDED` leaves out the jobs that have not ended. With `ends`, ends that were read lately are not
    read again, and have no counts of labels.
    Raises InvalidInput for a cursor that no page gave.
    """
    phase, _, place = cursor.partition(" ")
    found: list[Status] = []
    if phase in ("", "open"):
        begun, last = _open_place(place)
        rest = [one for one in _open_at(backend, begun, owner) if last is None or (one.created_at, one.id) < last]
        found = rest[:limit]
        if len(rest) > limit:
            return Listed(found, f"open {begun} {found[-1].created_at} {found[-1].id}")
        place = ended_before(begun).removeprefix(ENDED)
    elif phase != "ended" or (place and parse_ended(ENDED + place) is None and not _BEHIND_OPEN.fullmatch(place)):
        raise _no_cursor()
    seen = {one.id for one in found}
    # One request names a page and whether another follows; of many owners' jobs, most may be others'.
    at_once = limit + 1 if owner is None else _AMONG_OTHERS
    entries = index.ended(backend.store, after=ENDED + place if place else "", at_once=at_once)
    read = partial(_standing, backend) if ends is None else partial(ends.of, backend)
    looked = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        while looked < _MOST_LOOKED:
            if len(found) == limit:  # whether there are more is known without reading them
                return Listed(found, f"ended {place}" if next(entries, None) else "")
            some = list(islice(entries, max(limit - len(found), _AT_ONCE)))
            standing = pool.map(read, [(id, run) for _, id, run, _ in some], [key for key, *_ in some])
            for (key, id, _, _), one in zip(some, standing, strict=True):
                if len(found) == limit:
                    return Listed(found, f"ended {place}")
                place = key.removeprefix(ENDED)
                if one is not None and id not in seen and owner in (None, one.owner):
                    seen.add(id)
                    found.append(one)
            if not some:
                return Listed(found, "")
            looked += len(some)
    return Listed(found, f"ended {place}")


def _open_place(place: str) -> tuple[int, tuple[str, str] | None]:
    """Return when the first page was read, in milliseconds since the epoch, and the last job of the page before."""
    if not place:
        return int(time.time() * 1000), None
    begun, _, last = place.partition(" ")
    if not re.fullmatch(r"[0-9]{1,13}", begun) or " " not in last:
        raise _no_cursor()
    at, _, id = last.partition(" ")
    return int(begun), (at, id)


def _open_at(backend: Backend, begun: int, owner: str | None) -> list[Status]:
    """Return the jobs that had not ended at a time, newest first, as they stand now."""
    # A job is always among the active ones or in the index, and leaves the active ones last.
    found = {one.id: one for one in unended(backend, owner, begun)}
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = index.ended(backend.store, at_once=_AT_ONCE)
        since = list(islice(takewhile(lambda entry: entry[0] < ended_before(begun), entries), _MOST_LOOKED + 1))
        if len(since) > _MOST_LOOKED:
            raise _no_cursor()
        for one in pool.map(partial(_standing, backend), [(id, run) for _, id, run, _ in since if id not in found]):
            if one is not None and owner in (None, one.owner):
                found[one.id] = one
    return sorted(found.values(), key=lambda one: (one.created_at, one.id), reverse=True)


def _no_cursor() -> InvalidInput:
    return InvalidInput(
        "This cursor is too old, or none that a page gave; leave it out, and begin with the first page."
    )


def behind(backend: Backend, job: str) -> str:
    """Return the cursor of the page behind a job; raises UnknownJob for one that has not ended."""
    return FIRST_ENDED + _entry(backend, job).removeprefix(ENDED)


def _entry(backend: Backend, id: str) -> str:
    """Return the entry of a job that has ended."""
    spec, now = lifecycle.read_spec(backend.store, id), read_standing(backend.store, id)
    if now.end is None:
        raise UnknownJob(f"{id} has not ended, so it stands on the first page; name a job that has.")
    return index.entries(spec, now.end, now.run)[0]


class RecentEnds:
    """The ends that were read lately, by their entries in the index. Safe to use from many threads.

    An entry names the job, the run and the time of its end, and goes with the job, so what it stands for never changes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, str, str], tuple[float, Status]] = OrderedDict()

    def of(self, backend: Backend, entry: tuple[str, int], key: str) -> Status | None:
        """Return the end of a run, None if its job was deleted."""
        name = (backend.store.endpoint, backend.store.bucket, key)
        with self._lock:
            since, found = self._held.get(name, (0.0, None))
        # Read again now and then: a deletion that was broken off may leave an entry behind.
        if found is None or time.monotonic() - since > _RECENT_SECONDS:
            found = _standing(backend, entry)
            with self._lock:
                self._held.pop(name, None)
                if found is not None:
                    found = found.model_copy(update={"labels": None})
                    self._held[name] = (time.monotonic(), found)
                while len(self._held) > _MOST_ENDS:
                    self._held.popitem(last=False)
        return found


def _standing(backend: Backend, entry: tuple[str, int], _: str = "") -> Status | None:
    """Return the end of a run, None if its job was deleted or it cannot be read."""
    key = JobKeys(entry[0]).run_end(entry[1])
    try:
        return Status.model_validate_json(backend.store.get(key))
    except ObjectNotFound:
        return None
    except ValueError as error:
        log.warning("%s is left out of the list, for %s cannot be read: %s", entry[0], key, error)
        return None


def unended(backend: Backend, owner: str | None = None, since: int | None = None) -> list[Status]:
    """Return the jobs that have not ended, newest first; those of one owner if `owner` is given.

    With `since`, also active jobs that have ended at that time or later, in milliseconds since the epoch.
    """
    ids = set(lifecycle.active_jobs(backend.store))
    status_of: Callable[[str], Status] = partial(status, backend)
    try:
        ids |= backend.ledger.active()
    except RedisUnavailable as error:
        log.info("The list is from the bucket alone: %s", error)
        status_of = partial(status_from_bucket, backend.store)  # otherwise every job would wait for Redis again

    looked = in_parallel(partial(listed_status, status_of), ids, threads=_THREADS)
    there = [one for one in looked if one is not None and owner in (None, one.owner)]
    found = [one for one in there if not one.ended or (since is not None and index.ended_ms(one) >= since)]
    return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)
