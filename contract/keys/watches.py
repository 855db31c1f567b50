"""Object keys of watches and their segments, and the ids of their jobs."""

from __future__ import annotations

import re

from contract.keys.bucket import FEEDS, WATCHES
from contract.keys.names import record_name

_WATCH_STATE = re.compile(r"^watches/([a-z0-9-]+)/(\d{8}t\d{6}(?:\d{3})?)/$")
_THEN = re.compile(r"/then/(\d{6,})\.(json|begun)$")
_ARCHIVE = re.compile(r"/archived/(\d{6,})\.json$")
_SEGMENT = re.compile(r"/segments/(\d{6,})\.json$")
_TABLE = re.compile(r"([a-z0-9-]+)-(\d{8}t\d{6}(?:\d{3})?)")
_SEGMENT_JOB = re.compile(rf"{_TABLE.pattern}-(\d{{6,}})")


def watch_record(name: str) -> str:
    """A watch: the prefix that it follows, and what its segments' jobs are made of."""
    return f"{WATCHES}{name}.json"


def parse_watch(key: str) -> str | None:
    """The watch whose record this is, or None."""
    return record_name(WATCHES, key)


def watch_prefix(name: str) -> str:
    """Prefix of all that watches of this name have written."""
    return f"{WATCHES}{name}/"


def watch_state(name: str, stamp: str) -> str:
    """Prefix of what one watch writes; `stamp` is when it was added."""
    return f"{watch_prefix(name)}{stamp}/"


def parse_watch_state(key: str) -> tuple[str, str] | None:
    """The name and the stamp of the watch whose prefix this is, or None."""
    match = _WATCH_STATE.match(key)
    return (match[1], match[2]) if match else None


def watch_feed(name: str) -> str:
    """Prefix of what is uploaded for a watch that follows no other prefix."""
    return f"{FEEDS}{name}/"


REJECTED = "rejected"
REJECTED_EVENTS = f"{WATCHES}{REJECTED}/"
"""Events that could not be understood, and why; the newest are kept."""


def rejected_event(stamp: str, digest: str) -> str:
    """An event that could not be understood; `stamp` is when it came, UTC."""
    return f"{REJECTED_EVENTS}{stamp}-{digest[:16]}.json"


def watch_segments(root: str) -> str:
    """Prefix of the segments of a watch; `root` is its `watch_state`."""
    return f"{root}segments/"


def watch_segment(root: str, number: int) -> str:
    """A segment of a watch: its job, with the whole spec. Written if absent."""
    return f"{watch_segments(root)}{number:06d}.json"


def segment_job(name: str, stamp: str, number: int) -> str:
    """The id of the job of a segment; `name` and `stamp` are those of its watch."""
    return f"{name}-{stamp}-{number:06d}"


def watch_table(name: str, stamp: str) -> str:
    """The folder of the table of a watch, in whichever bucket its results are."""
    return f"{name}-{stamp}"


def parse_watch_table(folder: str) -> tuple[str, str] | None:
    """The name and the stamp of the watch whose table is in a folder of this name, or None."""
    match = _TABLE.fullmatch(folder)
    return (match[1], match[2]) if match else None


def parse_segment_job(job: str) -> tuple[str, str, int] | None:
    """The name and the stamp of the watch, and the number of its segment, whose job has this id, or None."""
    match = _SEGMENT_JOB.fullmatch(job)
    return (match[1], match[2], int(match[3])) if match else None


def parse_segment(key: str) -> int | None:
    """The number of the segment that an object key names, or None."""
    match = _SEGMENT.search(key)
    return int(match[1]) if match else None


def watch_thens(root: str) -> str:
    """Prefix of what the ends of a watch's segments have started."""
    return f"{root}then/"


def watch_then(root: str, number: int) -> str:
    """What the end of a segment starts, with the whole spec of the job. Written if absent."""
    return f"{watch_thens(root)}{number:06d}.json"


def watch_then_begun(root: str, number: int) -> str:
    """Empty; says that the job was submitted, so that nobody submits it again once it is deleted."""
    return f"{watch_thens(root)}{number:06d}.begun"


def parse_then(key: str) -> tuple[int, bool] | None:
    """The segment that an object key names, and whether what it starts is begun; or None."""
    match = _THEN.search(key)
    return (int(match[1]), match[2] == "begun") if match else None


def watch_archives(root: str) -> str:
    """Prefix of which segments of a watch are in its archive."""
    return f"{root}archived/"


def watch_archive(root: str, number: int) -> str:
    """What was moved of a segment; written last, and deleted when the segment's job has run again."""
    return f"{watch_archives(root)}{number:06d}.json"


def parse_archive(key: str) -> int | None:
    """The number of the segment that an object key says is in the archive, or None."""
    match = _ARCHIVE.search(key)
    return int(match[1]) if match else None


def watch_seen(root: str) -> str:
    """Prefix of the sorted runs of what a watch has planned in closed segments."""
    return f"{root}seen/"
