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
from contract.jobs.ends import read_end, read_standing
from contract.keys.watches import (
    parse_segment,
    parse_segment_job,
    parse_watch_state,
    segment_job,
    watch_prefix,
    watch_record,
    watch_segment,
    watch_segments,
    watch_state,
)
from contract.records import Record

MOST_SEGMENTS = 1_000
MOST_IMAGES = 1_000_000
"""What `watch:NAME` stands for at most: 1,000 segments of an hour are six weeks."""

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


def labelled_segments(store: ObjectStore, name: str, *, newest: bool = False, until: str | None = None) -> list[str]:
    """Return the jobs of the segments of a watch that have succeeded and are still there, oldest first.

    Of more than `MOST_SEGMENTS`, or of more than `MOST_IMAGES` labelled images, they are the newest ones; at least one
    is returned. With `newest` it is the newest alone. `until` is the job of the last segment that counts. Takes two
    requests a segment. Raises InvalidSource if there is none.
    """
    root = _root(store, name)
    numbers = segment_numbers(store, watch_state(*root)) if root else []
    last = parse_segment_job(until) if until else None
    counting = [number for number in reversed(numbers) if last is None or number <= last[2]]
    jobs = [segment_job(*root, number) for number in counting] if root else []
    found: list[str] = []
    images = 0
    for job, end in in_parallel(lambda job: (job, read_end(store, job)), jobs, threads=_THREADS):
        if end is None or end.state != "succeeded":
            continue
        images += end.ok
        if found and images > MOST_IMAGES:
            break
        found.append(job)
        if newest or len(found) == MOST_SEGMENTS:
            break
    if found:
        return found[::-1]
    if not numbers and not store.exists(watch_record(name)):
        raise InvalidSource(f"There is no watch {name!r}; `imagemill watch list` lists them.")
    raise InvalidSource(
        f"No segment of the watch {name!r} has succeeded yet; one ends after IMAGEMILL_WATCH_SEGMENT_SECONDS, and "
        f"`imagemill watch show {name}` shows those that are open."
    )
