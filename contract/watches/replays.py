"""A replay: the objects that a watch planned in a span of time, read from the manifests of its segments.

The span is of `planned_at`, not of `event_time`. What was planned in a span that is past stays the same, so the same
replay is the same job; an object that was modified in it may be found at any later time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from contract.backend.objects import ObjectStore
from contract.data.items import Item, read_manifest
from contract.errors import InvalidSource, ObjectNotFound
from contract.jobs.commits import in_parallel
from contract.keys.index import deleting
from contract.keys.jobs import JobKeys
from contract.keys.shards import MAX_OPEN_SHARDS, parse_shard
from contract.keys.watches import watch_record, watch_state
from contract.times import iso
from contract.watches.segments import Segment, read_segment, segment_numbers

_SLACK = timedelta(hours=1)
"""How far a shard's `planned_at` may lie outside of the time of its segment: two controllers have two clocks, and one
that was stopped appends late."""
_THREADS = 8


@dataclass(frozen=True)
class Replay:
    """What one watch planned at `begin` or later and before `end`, both UTC."""

    source: str
    """What the jobs of the watch read (`Watch.places`)."""
    name: str
    stamp: str
    begin: datetime
    end: datetime

    @property
    def uri(self) -> str:
        """The address of the source of its job; the buckets in it are those that the job may read."""
        return f"{self.source}#{self.name}/{self.stamp}/{_text(self.begin)}/{_text(self.end)}"

    @property
    def label(self) -> str:
        """The replay in words."""
        return f"what {self.name} planned from {_text(self.begin)} to {_text(self.end)}"

    @property
    def root(self) -> str:
        """Prefix of what the watch keeps in the bucket."""
        return watch_state(self.name, self.stamp)

    @staticmethod
    def of_uri(uri: str) -> Replay:
        """Parse what `uri` returned; raises InvalidSource."""
        source, _, rest = uri.rpartition("#")
        try:
            name, stamp, begin, end = rest.split("/")
            return Replay(source, name, stamp, datetime.fromisoformat(begin), datetime.fromisoformat(end))
        except ValueError:
            raise InvalidSource(f"{uri} names no replay of a watch.") from None


def replayed(store: ObjectStore, replay: Replay) -> Iterator[Item]:
    """Yield the items that a watch planned in a span, in the order of its log.

    Raises InvalidSource if the watch or a segment in the span was deleted.
    """
    numbers = segment_numbers(store, replay.root)
    if not numbers and not store.exists(watch_record(replay.name)):
        raise InvalidSource(f"The watch {replay.name} was removed, and with it the list of what it planned.")

    def opened(number: int) -> datetime:
        return datetime.fromisoformat(read_segment(store, replay.root, number).opened_at)

    first = max(0, bisect_right(numbers, replay.begin - _SLACK, key=opened) - 1)
    last = bisect_left(numbers, replay.end + _SLACK, lo=first, key=opened)
    read = partial(read_segment, store, replay.root)
    near = list(in_parallel(read, numbers[first : last + 1], threads=_THREADS))
    closed = [segment.opened_at for segment in near[1:]]
    spans = [
        (segment, closed[n] if n < len(closed) else None)
        for n, segment in enumerate(near[: last - first])
        if segment.job
    ]
    # First of all, so that nothing is begun in vain.
    for _ in in_parallel(lambda span: _check(store, replay, *span), spans, threads=_THREADS):
        pass
    for segment, end in spans:
        yield from _of_segment(store, segment, replay)
        _check(store, replay, segment, end)


def _check(store: ObjectStore, replay: Replay, segment: Segment, closed: str | None) -> None:
    """Raise InvalidSource if a segment in the span, open until `closed`, is deleted or being deleted."""
    if not store.exists(deleting(segment.job)) and store.exists(JobKeys(segment.job).spec):
        return
    until = datetime.fromisoformat(closed) if closed else None
    if datetime.fromisoformat(segment.opened_at) < replay.end and (until is None or until > replay.begin):
        raise InvalidSource(
            f"{segment.job} was deleted, and with it the list of what {replay.name} planned then; replay what was "
            f"planned before {segment.opened_at}{f', or from {closed}' if closed else ''}."
        )


def _of_segment(store: ObjectStore, segment: Segment, replay: Replay) -> Iterator[Item]:
    begin, end = replay.begin.timestamp(), replay.end.timestamp()
    found = (entry.key for entry in store.list(JobKeys(segment.job).plan_prefix))
    # Halves of bisected shards come behind, and hold what is in their shards.
    shards = (key for key in found if (shard := parse_shard(key)) and shard[1] == 0 and shard[0] < MAX_OPEN_SHARDS)
    try:
        for data in in_parallel(store.get, shards, threads=_THREADS):
            if not data:  # the end of the log
                return
            for item in read_manifest(data):
                if item.planned_at is not None and begin <= item.planned_at < end:
                    yield item
    except ObjectNotFound:
        return  # it is being deleted, as the check that follows finds


def _text(at: datetime) -> str:
    return iso(at.timestamp()) or ""
