"""Parses what object stores send when something was written: S3 records, SeaweedFS' webhook, CloudEvents.

An event is a hint that a stranger may have written. It says where to look, and a listing says what is there.

    {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": …}, "object": {"key": …}}}]}
                                                            AWS, MinIO, Ceph; keys are URL-encoded, `+` is a space
    {"event_type": "create", "key": "/buckets/BUCKET/KEY", "message": {"new_entry": …}}
                                                            SeaweedFS' filer; paths as they are, folders mixed in
    {"specversion": "1.0", "type": …, "data": …}            CloudEvents, or a list of them; `data` is one of the above,
                                                            one record of them, or {"bucket": …, "name" or "key": …}
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from contract.data.text import parse_json
from contract.errors import InvalidEvent
from contract.printable import printable

MAX_EVENTS = 10_000
"""Events in one body; AWS sends one record, and other senders a thousand at most."""
_MAX_KEY = 1024
"""Bytes of a key, as in S3."""
_BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ETAG = re.compile(r"[!-~]{1,128}")
_WRITTEN = re.compile(r"(s3:)?(ObjectCreated|ObjectRestore:Completed|Object Created)\b", re.IGNORECASE)
_GONE = re.compile(r"delet|remov|archiv|metadata", re.IGNORECASE)
_FILER = "/buckets/"
_UPLOADS = ".uploads"


@dataclass(frozen=True)
class Event:
    """An object that was written: `size` in bytes, `at` in seconds since the epoch; None where the sender told none."""

    bucket: str
    key: str
    etag: str | None = None
    size: int | None = None
    at: float | None = None


def parse_events(body: bytes) -> list[Event]:
    """Return the objects that a body says were written; deletions and folders are left out.

    Raises InvalidEvent, with a sentence for the sender, if any of it cannot be understood.
    """
    try:
        found = parse_json(body)
    except ValueError as error:
        raise InvalidEvent(f"The body is no JSON ({printable(str(error))[:200]}); send events as JSON.") from None
    many = found if isinstance(found, list) else [found]
    events: list[Event] = []
    for one in many:
        if isinstance(found, list) and not (isinstance(one, dict) and "specversion" in one):
            raise InvalidEvent("A list of events must be a batch of CloudEvents, each with a `specversion`.")
        for event in _events(one):
            if len(events) == MAX_EVENTS:
                raise InvalidEvent(f"The body holds more than {MAX_EVENTS:,} events; send them in several.")
            events.append(event)
    return events


def _events(one: Any) -> Iterator[Event]:
    match one:
        case {"specversion": str(version), "type": str(type)}:
            if not version.startswith("1."):
                raise InvalidEvent(f"CloudEvents {printable(version)[:20]} are not understood; send version 1.0.")
            if not _GONE.search(type):
                yield from _data(one.get("data"))
        case {"specversion": _}:
            raise InvalidEvent("A CloudEvent has no `type`.")
        case _:
            yield from _plain(one)


def _data(data: Any) -> Iterator[Event]:
    match data:
        case {"Records": _} | {"event_type": _} | {"s3": _}:
            yield from _plain(data)
        case {
            "bucket": {"name": str(bucket)},
            "object": {"key": str(key)} as object,
        }:  # as EventBridge, keys as they are
            yield _event(bucket, key, object.get("etag"), object.get("size"), None)
        case {"bucket": str(bucket), "key": str(key)} | {"bucket": str(bucket), "name": str(key)}:
            yield _event(bucket, key, data.get("etag"), data.get("size"), _time(data.get("updated")))
        case _:
            raise InvalidEvent("The `data` of a CloudEvent names no bucket and key.")


def _plain(one: Any) -> Iterator[Event]:
    match one:
        case {"Records": list(records)}:
            for record in records:
                yield from _record(record)
        case {"s3": _}:
            yield from _record(one)
        case {"event_type": str(type), "key": str(path), "message": dict(message)}:
            yield from _filer(type, path, message)
        case {"Event": "s3:TestEvent"}:  # AWS sends it when notifications are set up
            return
        case _:
            raise InvalidEvent(
                "The body is none of S3 records, SeaweedFS' webhook and CloudEvents; see Events in docs/howto/watch.md."
            )


def _record(record: Any) -> Iterator[Event]:
    match record:
        case {"s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)} as object}}:
            name = record.get("eventName", "ObjectCreated:Put")
            if isinstance(name, str) and _WRITTEN.match(name):
                at = _time(record.get("eventTime"))
                yield _event(bucket, _unquoted(key), object.get("eTag"), object.get("size"), at)
        case _:
            raise InvalidEvent("An S3 record names no bucket and key (`s3.bucket.name`, `s3.object.key`).")


def _filer(type: str, path: str, message: dict[str, Any]) -> Iterator[Event]:
    entry = message.get("new_entry")
    if type not in ("create", "update", "rename") or not isinstance(entry, dict) or entry.get("is_directory"):
        return
    parent, name = message.get("new_parent_path"), entry.get("name")
    if isinstance(parent, str) and isinstance(name, str):  # of what was renamed, `key` may be the old path
        path = f"{parent.rstrip('/')}/{name}"
    bucket, _, key = path.removeprefix(_FILER).partition("/")
    if not path.startswith(_FILER) or not key or key.startswith(f"{_UPLOADS}/"):
        return  # of the filer itself, or a part of an upload
    attributes = _object(entry, "attributes")
    etag = _decoded(_object(entry, "extended").get("Seaweed-X-Amz-ETag"))
    yield _event(bucket, key, etag, attributes.get("file_size"), attributes.get("mtime"))


def _event(bucket: str, key: str, etag: object, size: object, at: object) -> Event:
    """Return an event; raises InvalidEvent for what cannot be an object. Figures that make no sense are left out."""
    if not _BUCKET.fullmatch(bucket):
        raise InvalidEvent(f"{printable(bucket)[:80]!r} is no name of a bucket.")
    shown = printable(key)[:120]
    if not key or len(key.encode(errors="replace")) > _MAX_KEY or _CONTROL.search(key):
        raise InvalidEvent(f"'{shown}' is no key that is followed: it is empty, too long, or has control characters.")
    if any(part in (".", "..") for part in key.split("/")):
        raise InvalidEvent(f"'{shown}' is no key that is followed: it has a part `.` or `..`.")
    tag = etag.strip('"') if isinstance(etag, str) else ""
    return Event(
        bucket=bucket,
        key=key,
        etag=tag if _ETAG.fullmatch(tag) else None,
        size=_number(size),
        at=float(at) if isinstance(at, int | float) and 0 <= at < 2**40 else None,
    )


def _object(found: dict[str, Any], name: str) -> dict[str, Any]:
    inner = found.get(name)
    return inner if isinstance(inner, dict) else {}


def _unquoted(key: str) -> str:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise InvalidEvent(f"'{printable(key)[:120]}' is no URL-encoded key in UTF-8.") from None


def _number(value: object) -> int | None:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"\d{1,15}", text, re.ASCII) else None


def _time(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _decoded(text: object) -> str | None:
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
