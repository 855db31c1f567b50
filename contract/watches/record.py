"""Watches, each an object in the bucket: what is followed, and with what it is labelled.

Everything that a watch writes lies below a folder of its own, named after the millisecond in which it was added. A
watch that is removed and added again under the same name begins anew, and a controller that has not noticed yet writes
where nobody reads.
"""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import blake2b
from types import MappingProxyType
from typing import Literal, TypeAlias

from pydantic import Field

from contract.backend.named_records import NamedRecords
from contract.data.items import parse_s3
from contract.errors import InvalidWatch, UnknownWatch
from contract.jobs.templates import Template
from contract.keys.bucket import WATCHES
from contract.keys.watches import REJECTED, REJECTED_EVENTS, parse_watch, segment_job, watch_record, watch_state
from contract.records import Record

Overwrites: TypeAlias = Literal["ignore", "again"]
Start: TypeAlias = Literal["beginning", "now"]

LEAST_SECONDS, MOST_SECONDS = 0.1, 86_400.0
"""Shortest and longest `--every`."""

_STAMP = "%Y%m%dt%H%M%S"
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Watch(Record):
    """`watches/<name>.json`."""

    name: str
    source: str = Field(description="`s3://bucket/prefix` that is followed.")
    every: float = Field(ge=LEAST_SECONDS, le=MOST_SECONDS, description="Seconds between two sweeps.")
    start: Start = Field("beginning", description="Whether objects that were there before the watch are labelled.")
    overwrites: Overwrites = Field("ignore", description="Whether an object that is overwritten is labelled again.")
    archive: str = Field(
        "", description="`s3://bucket/prefix/` that labelled objects are moved to; empty: they stay where they are."
    )
    then: str = Field("", description="Schedule whose command each segment's end starts; empty: none.")
    delta: bool = Field(False, description="Whether its table is a Delta table too.")
    paused: bool = False
    created_at: str
    template: Template = Field(description="What each segment's job is made of.")
    owner: str = Field("", description="Who may change it; empty: anybody.")

    @property
    def bucket(self) -> str:
        """The bucket that is followed."""
        return parse_s3(self.source)[0]

    @property
    def prefix(self) -> str:
        """The prefix of the keys that are followed; it may be empty."""
        return parse_s3(self.source)[1]

    @property
    def places(self) -> str:
        """What its jobs read, as the address of their source: the prefix, and behind a space the archive."""
        return source_of(self.source, self.archive)

    @property
    def stamp(self) -> str:
        """When the watch was added, as part of keys and of the ids of its jobs."""
        added = datetime.fromisoformat(self.created_at)
        return f"{added:{_STAMP}}{added.microsecond // 1000:03d}"

    @property
    def root(self) -> str:
        """Prefix of what the watch keeps in the bucket, with a slash at its end."""
        return watch_state(self.name, self.stamp)

    def job(self, segment: int) -> str:
        """Return the id of the job of a segment."""
        return segment_job(self.name, self.stamp, segment)

    def identity(self, key: str, etag: str) -> bytes:
        """Return the 16 bytes that stand for an object in the seen-set.

        An object is (bucket, key, etag); where overwrites are ignored, it is (bucket, key).
        """
        parts = (self.bucket, key, etag) if self.overwrites == "again" else (self.bucket, key)
        return blake2b("\0".join(parts).encode(), digest_size=16).digest()

    def archived(self, key: str, etag: str) -> str | None:
        """Return the address that a version of an object is moved to, None without an archive.

        It keeps the folders below the prefix and the suffix; versions of one key have addresses of their own.
        """
        if not self.archive:
            return None
        digest = blake2b(f"{key}\0{etag}".encode(), digest_size=8).hexdigest()
        folder, slash, name = key.removeprefix(self.prefix).lstrip("/").rpartition("/")
        dot = name.rfind(".")
        stem, suffix = (name[:dot], name[dot:]) if dot > 0 else (name, "")
        return f"{self.archive}{folder}{slash}{stem}-{digest}{suffix}"


def source_of(prefix: str, archive: str) -> str:
    """Return the address of the source of a watch's jobs (`Source.archived`)."""
    return f"{prefix} {archive}" if archive else prefix


def folder_of(archive: str) -> str:
    """Return the address of an archive with one slash at its end, or "" for none."""
    return archive and archive.rstrip("/") + "/"


def parse_every(text: str, option: str = "--every") -> float:
    """Return the seconds of an interval such as `500ms`, `5s` or `2m`; raises InvalidWatch."""
    match = _SECONDS.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise InvalidWatch(f"{option} {text!r} is no time from 100ms to 24h; write it as 500ms, 5s, 2m or 1h.")
    return seconds


class Watches(NamedRecords[Watch]):
    """The watches of one bucket. A controller ends the open segment of one that is removed."""

    record = Watch
    noun, commands = "watch", "imagemill watch"
    first = "`imagemill watch add --help` shows how to add one."
    invalid, unknown = InvalidWatch, UnknownWatch
    longest = 32  # the id of a segment's job, such as `NAME-20261126t083012345-000001`, stays within 63 characters
    reserved = MappingProxyType(
        {REJECTED: f"{REJECTED_EVENTS} in the bucket holds the events that could not be understood"}
    )
    prefix = WATCHES
    key, parse = staticmethod(watch_record), staticmethod(parse_watch)

    def own(self, name: str, owner: str) -> Watch:
        """Make `owner` the owner of a watch, from its next segment on; raises what `get` raises."""
        found = self.get(name)
        if found.owner == owner:
            return found
        return self.change(found, owner=owner, template=found.template.taken_over(owner))
