"""Which images of a job a reviewer sees, in which order. Kept in memory, since finding them reads all rows.

What is kept can be lost at any time: it is made of rows, which do not change, and of verdicts, which do not either. The
verdicts of a large job are listed again after some seconds; until then this process knows those that it wrote itself,
and counts these alone. Who is shown what is known to this process only.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Generic, Literal, TypeAlias, TypeVar

from fastapi import Depends, Request

from contract.backend.objects import ObjectStore
from contract.jobs.reviews import neighbours, verdicts
from contract.jobs.reviews.records import Given, Named
from contract.jobs.reviews.settle import Votes
from contract.jobs.reviews.tally import Tally
from contract.jobs.status import Status
from producer.jobs.doubts import Doubt, against_neighbours, least_certain

if TYPE_CHECKING:
    from producer.web.app import Api

Show = Literal["new", "second", "disputed"]
"""Images that nobody has reviewed; that others have, and the reviewer has not; on which the reviewers disagree."""

Order = Literal["margin", "entropy", "neighbours"]
"""The order of images: by how sure the model was, or by how many of the nearest images carry another label."""

_MOST = 500
"""Images that are found at a time; then the rows are looked through again."""
_MOST_HELD = 16
MOST_VERDICTS = 500_000
"""Verdicts that are held in all, 770 bytes each and 200 for a name; those of the jobs that were looked at last."""
AT_ONCE = 1000
"""Verdicts that a store lists in one answer; those of a job that has no more are listed for each page."""
_LISTED_SECONDS = 30.0
"""For how long a listing is kept at most: one second for each `AT_ONCE`."""
_ASK_SECONDS = 20.0
"""Between two requests that a worker compare a job's images; a message is lost if Redis was wiped."""
_FRESH_SECONDS = 30.0
"""For how long the order of a job that runs is good enough; that of one that has ended does not change."""

_SHOWN_SECONDS = 60.0
"""For how long an image that one reviewer is shown comes behind the others for everybody else."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Waiting:
    """The images that wait for a reviewer."""

    doubts: list[Doubt]
    """The least certain first."""
    reviewed: int
    """Images that somebody has reviewed."""
    votes: Votes
    """What was said of those that wait; empty unless they are disputed, so that nobody is led."""


@dataclass(frozen=True)
class _Found:
    since: float
    finished: str | None
    among: frozenset[str] | None
    doubts: list[Doubt]


@dataclass(frozen=True, eq=False)
class _Listed:
    """The verdicts of a job that stand, as they were listed, with what this process wrote since."""

    names: list[Named]
    """Sorted."""
    until: float = 0.0
    since: list[tuple[Named, bool]] = field(default_factory=list)
    """What was written since it was listed, in order, and whether that stands."""


@dataclass(frozen=True)
class _Shown:
    images: frozenset[str]
    until: float


@dataclass
class _Read:
    """The verdicts of a job that were read, and those of them that are counted."""

    known: dict[Named, tuple[Given, ...]] = field(default_factory=dict)
    counted: set[Named] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    listed: _Listed | None = None
    """The listing that is counted."""
    applied: int = 0
    """How much of what was written since is counted."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, listed: _Listed, names: Iterable[Named], since: Sequence[tuple[Named, bool]]) -> None:
        """Count what a listing has: all of its `names`, or if they are counted, what was written `since` alone."""
        if self.listed is listed:
            last = dict(since[self.applied :])
            added = {named for named, stands in last.items() if stands and named not in self.counted}
            removed = {named for named, stands in last.items() if not stands and named in self.counted}
        else:
            standing = set(names)
            added, removed = standing - self.counted, self.counted - standing
            self.listed, self.applied = listed, 0
        self.tally.change(*([one for named in some for one in self.known[named]] for some in (added, removed)))
        self.counted |= added
        self.counted -= removed
        self.applied = max(self.applied, len(since))


class Queues:
    """The orders and the verdicts of a few jobs."""

    def __init__(self) -> None:
        self._found: _Held[tuple[str, ...], _Found] = _Held()
        self._asked: _Held[str, float] = _Held()
        self._verdicts: _Held[str, _Read] = _Held()
        self._lock = threading.Lock()
        self._listed: _Held[str, _Listed] = _Held()
        self._changes = 0
        self._shown: _Held[str, dict[str, _Shown]] = _Held()
        """What each reviewer of a job is shown."""

    @contextmanager
    def tally(self, store: ObjectStore, job: str) -> Iterator[Tally]:
        """Give the count of the verdicts on a job's images, for a moment; only those that are new are read.

        Raises JobConflict if there are more than can be held.
        """
        read, listed = self._verdicts.of(job, _Read), self._list(store, job)
        while True:
            with self._lock:
                counted, applied, since = read.listed is listed, read.applied, list(listed.since)
                names = None if counted else list(listed.names)
            self._read(store, job, read, [one for one, stands in since[applied:] if stands] if names is None else names)
            with read.lock:
                if names is None and read.listed is not listed:
                    continue  # another thread counts another listing
                read.count(listed, names or (), since)
                verdicts.check_number(job, read.tally.verdicts, MOST_VERDICTS)
                yield read.tally
                return

    def _read(self, store: ObjectStore, job: str, read: _Read, names: Iterable[Named]) -> None:
        """Read the verdicts that are not known; they may take the place of other jobs'."""
        new = sorted(named for named in names if named not in read.known)
        if not new:
            return
        try:
            for _ in verdicts.given(store, job, read.known, most=MOST_VERDICTS, names=new):
                pass
        finally:
            self._verdicts.trim(MOST_VERDICTS, lambda held: sum(map(len, list(held.known.values()))))

    def reviewed(self, store: ObjectStore, job: str) -> Container[str]:
        """Return the images of a job that somebody has reviewed; raises JobConflict if they are too many."""
        with self.tally(store, job) as tally:
            return tally.images()

    def gave(self, job: str, named: Named) -> None:
        """Note that a verdict was written, so that the next page knows it."""
        with self._lock:
            self._changes += 1
            if (held := self._listed.get(job)) is not None:
                place = bisect_left(held.names, named)
                if held.names[place : place + 1] != [named]:  # it may have been listed since it was written
                    held.names.insert(place, named)
                    held.since.append((named, True))

    def withdrew(self, job: str, named: Named) -> None:
        """Note that a verdict was taken back."""
        with self._lock:
            self._changes += 1
            if (held := self._listed.get(job)) is not None:
                place = bisect_left(held.names, named)
                if held.names[place : place + 1] == [named]:  # else it was taken back before
                    del held.names[place]
                    held.since.append((named, False))

    def _list(self, store: ObjectStore, job: str) -> _Listed:
        """Return the verdicts of a job that stand: as they were listed a moment ago if they are many."""
        with self._lock:
            held, changes = self._listed.get(job), self._changes
            if held is not None and time.monotonic() < held.until:
                return held
        names = verdicts.listed(store, job)
        if AT_ONCE < len(names) <= MOST_VERDICTS:
            with self._lock:
                # What was written meanwhile may be missing.
                if changes == self._changes:
                    until = time.monotonic() + min(_LISTED_SECONDS, len(names) / AT_ONCE)
                    listed = _Listed(names, until)
                    self._listed.put(job, listed)
                    self._listed.trim(MOST_VERDICTS, lambda held: len(held.names))
                    return listed
        return _Listed(names)

    def asked_lately(self, job: str) -> bool:
        """Return whether a worker was asked for the neighbours of a job a moment ago; note that it is asked now."""
        last, now = self._asked.get(job), time.monotonic()
        if last is not None and now - last < _ASK_SECONDS:
            return True
        self._asked.put(job, now)
        return False

    def show(self, job: str, reviewer: str, images: Iterable[str]) -> None:
        """Note which images a reviewer of a job is shown, in place of the ones before; what others see stays theirs."""
        shown = _Shown(frozenset(images) - self.shown_to_others(job, reviewer), time.monotonic() + _SHOWN_SECONDS)
        with self._lock:
            self._shown.of(job, dict)[reviewer] = shown

    def shown_to_others(self, job: str, reviewer: str) -> frozenset[str]:
        """Return the images that other reviewers of a job were shown by this process within the last minute."""
        now = time.monotonic()
        with self._lock:
            shown = self._shown.of(job, dict)
            for other in [other for other, one in shown.items() if one.until <= now]:
                del shown[other]
            return frozenset().union(*(one.images for other, one in shown.items() if other != reviewer))

    def waiting(self, store: ObjectStore, status: Status, by: Order, show: Show, reviewer: str) -> Waiting:
        """Return the images that wait for a reviewer."""
        if show == "new":
            doubts, reviewed = self._new(store, status, by)
            return Waiting(doubts, reviewed, {})
        with self.tally(store, status.id) as tally:
            reviewed, cast = len(tally), {image: tally.votes(image) for image in tally.disputed}
            wanted = frozenset(tally.not_by(reviewer) if show == "second" else cast)
        key = _key(status, by, show, reviewer)
        doubts = [one for one in self._among(store, status, by, wanted, key) if one.image in wanted]
        return Waiting(doubts, reviewed, {one.image: cast[one.image] for one in doubts} if show == "disputed" else {})

    def shown(
        self, store: ObjectStore, status: Status, by: Order, show: Show, reviewer: str, image: str
    ) -> Doubt | None:
        """Return an image as a page showed it, even if someone else reviewed it since; None if no page showed it."""
        found = self._found.get(_key(status, by, show, reviewer))
        shown = next((one for one in found.doubts if one.image == image), None) if found else None
        if shown is not None:
            return shown
        waiting = self.waiting(store, status, by, show, reviewer).doubts
        return next((one for one in waiting if one.image == image), None)

    def _new(self, store: ObjectStore, status: Status, by: Order) -> tuple[list[Doubt], int]:
        """Return the least certain images of a job that nobody has reviewed, and how many somebody has.

        They are looked for anew once all that were found are reviewed.
        """
        key = _key(status, by, "new", "")
        found = self._found.get(key)
        with self.tally(store, status.id) as tally:
            reviewed = len(tally)
            if found is not None and found.finished == status.finished_at:
                left = [one for one in found.doubts if one.image not in tally]
                fresh = status.ended or time.monotonic() - found.since < _FRESH_SECONDS
                if fresh and (left or len(found.doubts) < _MOST):
                    return left, reviewed
            said = tally.images()
        doubts = _find(store, status, by, without=said)
        if doubts is None:
            return [], reviewed
        self._found.put(key, _Found(time.monotonic(), status.finished_at, None, doubts))
        return doubts, reviewed

    def _among(
        self, store: ObjectStore, status: Status, by: Order, wanted: frozenset[str], key: tuple[str, ...]
    ) -> list[Doubt]:
        """Return the least certain of these images, looked for anew if none is left, and now and then if more came."""
        found = self._found.get(key)
        if found is not None and found.among is not None and found.finished == status.finished_at:
            all_there = wanted <= found.among and len(found.doubts) < _MOST
            left = any(one.image in wanted for one in found.doubts)
            if all_there or (left and time.monotonic() - found.since < _FRESH_SECONDS):
                return found.doubts
        doubts = _find(store, status, by, among=wanted)
        if doubts is None:
            return []
        self._found.put(key, _Found(time.monotonic(), status.finished_at, wanted, doubts))
        return doubts


def _key(status: Status, by: Order, show: Show, reviewer: str) -> tuple[str, ...]:
    """Name a list of images; each reviewer has one of those that others reviewed."""
    return (status.id, by, show, reviewer if show == "second" else "")


def _find(
    store: ObjectStore,
    status: Status,
    by: Order,
    *,
    without: Container[str] = (),
    among: Container[str] | None = None,
) -> list[Doubt] | None:
    """Return the first images in an order, None if no worker has compared them yet."""
    if by != "neighbours":
        return least_certain(store, status.id, _MOST, by=by, without=without, among=among)
    table = neighbours.read(store, status.id, end=status.finished_at)
    if table is None:
        return None
    return against_neighbours(store, status.id, table, _MOST, without=without, among=among)


class _Held(Generic[K, V]):
    """The values that were used last, for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        with self._lock:
            return self._values.get(key)

    def of(self, key: K, make: Callable[[], V]) -> V:
        with self._lock:
            value = self._values.setdefault(key, make()) if key not in self._values else self._values[key]
            self._keep(key)
            return value

    def put(self, key: K, value: V) -> None:
        with self._lock:
            self._values[key] = value
            self._keep(key)

    def trim(self, most: int, size: Callable[[V], int]) -> None:
        """Forget those that were used longest ago until the others have at most this size together."""
        with self._lock:
            sizes = {key: size(value) for key, value in list(self._values.items())}
            left = sum(sizes.values())
            for key, own in sizes.items():
                if left <= most:
                    return
                del self._values[key]
                left -= own

    def _keep(self, key: K) -> None:
        self._values.move_to_end(key)
        while len(self._values) > _MOST_HELD:
            self._values.popitem(last=False)


async def _of_this_server(request: Request) -> Queues:
    api: Api = request.app
    return api.queues


Shared: TypeAlias = Annotated[Queues, Depends(_of_this_server)]
"""The type of a parameter, which FastAPI fills: what this server has read, whether for a page or for a program."""
