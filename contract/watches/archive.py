"""Which segments of a watch are in its archive. An object is there once the segment's job has ended, if it has a label.

What is to be moved, and where to, stands in the rows and the manifests of the job; this says that it was done.
"""

from __future__ import annotations

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.keys.watches import parse_archive, parse_segment_job, watch_archive, watch_archives, watch_state
from contract.records import Record


class ArchivedSegment(Record):
    """`archived/<number>.json` below the folder of a watch."""

    segment: int
    job: str
    run: int
    moved: int
    kept: int
    """Objects that stay where they are: without a label, overwritten since, or gone."""


def archived_segments(store: ObjectStore, root: str) -> set[int]:
    """Return the segments that were moved; `root` is the folder of the watch."""
    found = (parse_archive(entry.key) for entry in store.list(watch_archives(root)))
    return {number for number in found if number is not None}


def read_archived(store: ObjectStore, root: str, segment: int) -> ArchivedSegment | None:
    """Return what was moved of a segment, None if it was not."""
    try:
        return ArchivedSegment.model_validate_json(store.get(watch_archive(root, segment)))
    except ObjectNotFound:
        return None


def record_archived(store: ObjectStore, root: str, made: ArchivedSegment) -> None:
    """Write that a segment was moved, after all of it was."""
    store.put(watch_archive(root, made.segment), made.to_json())


def forget_archived(store: ObjectStore, job: str) -> None:
    """Have a segment looked at again, since its job ran again and more of it may have a label now."""
    if (found := parse_segment_job(job)) is not None:
        name, stamp, segment = found
        store.delete(watch_archive(watch_state(name, stamp), segment))
