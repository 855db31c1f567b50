"""The segments of a watch: each is an ordinary job whose plan stays open for a while.

A segment is decided once: its record, which holds the whole spec of its job, is written only if absent, and the job is
submitted afterwards.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource
from contract.jobs.commits import in_parallel
from contract.jobs.ends import read_standing
from contract.keys.watches import (
    parse_segment,
    parse_watch_state,
    segment_job,
    watch_prefix,
    watch_segment,
    watch_segments,
    watch_state,
)
from contract.records import Record

_THREADS = 16


class Segment(Record):
    """`segments/<number>.json` below the folder of a watch."""

    number: int
    job: str = Field(description="Id of its job; empty for what was there before a watch with `--from now`.")
    opened_at: str
    before: int = Field(description="Objects that earlier segments planned.")
    spec: dict[str, Any] | None = Field(
        default=None, description="Spec of the job, so that whoever submits it submits the same one."
    )


def segment_numbers(store: ObjectStore, root: str) -> list[int]:
    """Return the numbers of the segments that were opened, in order; `root` is the folder of the watch."""
    entries = store.list(watch_segments(root))
    return sorted(number for number in (parse_segment(entry.key) for entry in entries) if number is not None)


def read_segment(store: ObjectStore, root: str, number: int) -> Segment:
    """Return a segment; raises ObjectNotFound."""
    return Segment.model_validate_json(store.get(watch_segment(root, number)))


def decide_segment(store: ObjectStore, root: str, segment: Segment) -> Segment:
    """Write a segment; return the one that stands, which another controller may have decided."""
    if store.put_if_absent(watch_segment(root, segment.number), segment.to_json()):
        return segment
    return read_segment(store, root, segment.number)


def count_labels(store: ObjectStore, name: str) -> tuple[int, Counter[str]]:
    """Count the images of a watch by label, in the segments that have succeeded and whose jobs are there.

    Return the number of those segments, and the counts. It takes two requests a segment.
    """
    root = _root(store, name)
    found, counts = 0, Counter[str]()
    if root is None:
        return found, counts
    jobs = (segment_job(*root, number) for number in segment_numbers(store, watch_state(*root)))
    for standing in in_parallel(lambda job: read_standing(store, job), jobs, threads=_THREADS):
        if standing.end is not None and standing.end.state == "succeeded":
            found += 1
            counts.update(standing.end.labels or {})
    return found, counts


def _root(store: ObjectStore, name: str) -> tuple[str, str] | None:
    """Return the name of a watch and when it was added, None if it has written nothing."""
    entries = store.list(watch_prefix(name), folders=True)
    roots = [found for found in (parse_watch_state(entry.key) for entry in entries) if found]
    return roots[-1] if roots else None


def newest_labelled(store: ObjectStore, name: str) -> str:
    """Return the job of the newest segment of a watch that has succeeded; raises InvalidSource if there is none."""
    found = _root(store, name)
    root = watch_state(*found) if found else ""
    for number in reversed(segment_numbers(store, root) if root else []):
        job = read_segment(store, root, number).job
        end = read_standing(store, job).end if job else None
        if end is not None and end.state == "succeeded":
            return job
    raise InvalidSource(
        f"No segment of the watch {name!r} has succeeded yet; `imagemill watch show {name}` shows those that are open."
    )
