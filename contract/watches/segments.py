"""The segments of a watch: each is an ordinary job whose plan stays open for a while.

A segment is decided once: its record, which holds the whole spec of its job, is written only if absent, and the job is
submitted afterwards.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from contract import keys
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource
from contract.jobs.ends import read_standing
from contract.records import Record


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
    entries = store.list(keys.watch_segments(root))
    return sorted(number for number in (keys.parse_segment(entry.key) for entry in entries) if number is not None)


def read_segment(store: ObjectStore, root: str, number: int) -> Segment:
    """Return a segment; raises ObjectNotFound."""
    return Segment.model_validate_json(store.get(keys.watch_segment(root, number)))


def decide_segment(store: ObjectStore, root: str, segment: Segment) -> Segment:
    """Write a segment; return the one that stands, which another controller may have decided."""
    if store.put_if_absent(keys.watch_segment(root, segment.number), segment.to_json()):
        return segment
    return read_segment(store, root, segment.number)


def newest_labelled(store: ObjectStore, name: str) -> str:
    """Return the job of the newest segment of a watch that has succeeded; raises InvalidSource if there is none."""
    entries = store.list(keys.watch_prefix(name), folders=True)
    roots = [entry.key for entry in entries if keys.parse_watch_state(entry.key)]
    for number in reversed(segment_numbers(store, roots[-1]) if roots else []):
        job = read_segment(store, roots[-1], number).job
        end = read_standing(store, job).end if job else None
        if end is not None and end.state == "succeeded":
            return job
    raise InvalidSource(
        f"No segment of the watch {name!r} has succeeded yet; `imagemill watch show {name}` shows those that are open."
    )
