"""Watches, each an object in the bucket: what is followed, and with what it is labelled.

Everything that a watch writes lies below a folder of its own, named after the second in which it was added. A watch
that is removed and added again under the same name begins anew, and a controller that has not noticed yet writes where
nobody reads.
"""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import blake2b
from typing import Literal, TypeAlias

from pydantic import Field, ValidationError

from contract import keys
from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import InvalidWatch, NotOwner, ObjectNotFound, UnknownWatch
from contract.jobs.templates import Template
from contract.records import Record
from contract.suggest import did_you_mean

Overwrites: TypeAlias = Literal["ignore", "again"]
Start: TypeAlias = Literal["beginning", "now"]

LEAST_SECONDS, MOST_SECONDS = 0.1, 86_400.0
"""Shortest and longest `--every`."""

# Short enough that the id of a segment's job, such as `NAME-20261126t083012-000001`, stays within 63 characters.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
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
        return datetime.fromisoformat(self.created_at).strftime(_STAMP)

    @property
    def root(self) -> str:
        """Prefix of what the watch keeps in the bucket, with a slash at its end."""
        return keys.watch_state(self.name, self.stamp)

    def job(self, segment: int) -> str:
        """Return the id of the job of a segment."""
        return f"{self.name}-{self.stamp}-{segment:06d}"

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


def check_name(name: str) -> str:
    """Return the name if a watch can have it; raises InvalidWatch."""
    if not _NAME.fullmatch(name):
        raise InvalidWatch(
            f"{name!r} cannot be the name of a watch; use up to 32 of a-z, 0-9 and -, with a letter or digit first."
        )
    return name


def parse_every(text: str, option: str = "--every") -> float:
    """Return the seconds of an interval such as `500ms`, `5s` or `2m`; raises InvalidWatch."""
    match = _SECONDS.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise InvalidWatch(f"{option} {text!r} is no time from 100ms to 24h; write it as 500ms, 5s, 2m or 1h.")
    return seconds


class Watches:
    """The watches of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def names(self) -> list[str]:
        """Return the names of all watches, sorted."""
        entries = self._store.list(keys.WATCHES, folders=True)
        return sorted(found for found in (keys.parse_watch(entry.key) for entry in entries) if found)

    def get(self, name: str) -> Watch:
        """Return a watch; raises UnknownWatch with the nearest names, and InvalidWatch if it cannot be read."""
        try:
            data = self._store.get(keys.watch_record(check_name(name)))
        except (InvalidWatch, ObjectNotFound):
            raise UnknownWatch(self._unknown(name)) from None
        try:
            return Watch.model_validate_json(data)
        except ValidationError as error:
            raise InvalidWatch(
                f"The watch {name} cannot be read by this version of Imagemill; remove it and add it again."
            ) from error

    def add(self, watch: Watch) -> None:
        """Write a new watch; raises InvalidWatch if the name is taken."""
        key, data = keys.watch_record(watch.name), watch.to_json()
        # If the response to our write was lost, the object is ours all the same.
        if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
            raise InvalidWatch(
                f"There is a watch {watch.name!r} already; choose another name, or "
                f"`imagemill watch remove {watch.name}` first."
            )

    def owned(self, name: str, owner: str) -> Watch:
        """Return a watch that `owner` may change; raises NotOwner, and what `get` raises."""
        found = self.get(name)
        if found.owner not in ("", owner):
            raise NotOwner(
                f"The watch {name} belongs to {found.owner}, and you are {owner}; set IMAGEMILL_OWNER if that is "
                "you too."
            )
        return found

    def put(self, watch: Watch) -> None:
        """Overwrite a watch."""
        self._store.put(keys.watch_record(watch.name), watch.to_json())

    def remove(self, name: str) -> None:
        """Remove the record of a watch; a controller ends its open segment. Raises UnknownWatch."""
        if name not in self.names():
            raise UnknownWatch(self._unknown(name))
        self._store.delete(keys.watch_record(name))

    def _unknown(self, name: str) -> str:
        known = self.names()
        if not known:
            return f"There is no watch {name!r}, nor any other; `imagemill watch add --help` shows how to add one."
        return f"There is no watch {name!r}; {did_you_mean(name, known)} `imagemill watch list` shows all."
