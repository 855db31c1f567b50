"""Sends one file: reads it whole, checks that it stood still meanwhile, and writes the object unless it is there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from producer.uploads.sent import Version

Outcome: TypeAlias = Literal["sent", "there", "changed", "gone", "refused"]


@dataclass(frozen=True, slots=True)
class Sending:
    """A file that has stood still. `known` is the MD5 of what was sent of it before.

    With `compare` the object may be there without our knowledge: we were killed, or its answer was lost.
    """

    key: str
    path: str
    version: Version
    known: bytes | None = None
    compare: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a file: `there` if the object has its content already, `changed` if it did not stand still, and
    `refused` with a reason if it cannot be read."""

    outcome: Outcome
    md5: bytes = b""
    reason: str = ""


def version_of(found: os.stat_result) -> Version:
    """Return what tells one version of a file from another."""
    return Version(found.st_size, found.st_mtime_ns)


def send(store: ObjectStore, bucket: str, sending: Sending) -> Sent:
    """Write a file to its object. It is safe to do twice: the same bytes are the same object with the same ETag.

    Raises what the store raises.
    """
    try:
        with open(sending.path, "rb") as file:
            if version_of(os.fstat(file.fileno())) != sending.version:
                return Sent("changed")
            data = file.read(sending.version.size + 1)
            after = version_of(os.fstat(file.fileno()))
    except FileNotFoundError:
        return Sent("gone")
    except OSError as error:
        return Sent("refused", reason=error.strerror or str(error))
    if after != sending.version or len(data) != sending.version.size:
        return Sent("changed")
    digest = hashlib.md5(data, usedforsecurity=False)
    if sending.known != digest.digest() and not (sending.compare and _is_there(store, bucket, sending.key, data)):
        store.put(sending.key, data, bucket=bucket)
        return Sent("sent", digest.digest())
    return Sent("there", digest.digest())


def _is_there(store: ObjectStore, bucket: str, key: str, data: bytes) -> bool:
    """Whether an object holds these bytes already."""
    first = next(iter(store.pages(key, bucket=bucket)), ())
    entry = next((entry for entry in first if entry.key == key), None)
    if entry is None or entry.size != len(data):
        return False
    if entry.etag == hashlib.md5(data, usedforsecurity=False).hexdigest():
        return True
    # Encrypted or written in parts, an object has another ETag than the MD5 of its content.
    try:
        return store.get(key, bucket=bucket, etag=entry.etag) == data
    except ObjectNotFound:
        return False
