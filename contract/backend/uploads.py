"""Uploads of clients of the HTTP API: kept from their first use on, and deleted if nobody used them in time.

    index/uploads/begun/<owner>/<id>      addresses were handed out for it, and nobody used it yet; empty
    index/uploads/claimed/<owner>/<id>    `used`, or `deleting` and by whom; written if absent

A job or a schedule uses an upload by naming it or a prefix above it, and a manifest by listing a file of it.
The claim is written once, so a use and a deletion at the same moment have one winner, and the other one learns of it.
What was used is deleted by its owner alone.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, ObjectNotFound, UnknownUpload
from contract.keys.bucket import UPLOADS
from contract.keys.uploads import UPLOADS_BEGUN, upload_begun, upload_claim, upload_prefix

_USED, _DELETING = b"used", b"deleting "
_PLACE = re.compile(r"[0-9a-f]{16}/[0-9a-f]{16}")
_BROKEN_OFF_SECONDS = 86_400
"""Age of a claim whose deletion has ended before it was done, so that another one goes on."""


def place_of(owner: str, id: str) -> str:
    """Return what stands behind `uploads/` in the addresses of the files of an upload."""
    return upload_prefix(owner, id).removeprefix(UPLOADS).rstrip("/")


def begin(store: ObjectStore, owner: str, id: str) -> None:
    """Note that files may come to an upload from now on; raises UnknownUpload if it is being deleted."""
    place = place_of(owner, id)
    begun, claim = upload_begun(place), _claim(store, place)
    if claim not in (None, _USED):
        store.put_if_absent(begun, b"")  # a newer note would put off whoever ends a deletion that broke off
        raise _late(place)
    if claim is None and not store.exists(begun) and any(store.list(upload_prefix(owner, id))):
        return  # it began under a version that noted none, so a job may use it
    # The note first, and then the claim; a deletion claims, and then looks whether a note has come.
    store.put(begun, b"")
    claim = _claim(store, place)
    if claim not in (None, _USED):
        raise _late(place)
    if claim is not None:
        store.delete(begun)


def forget(store: ObjectStore, owner: str, id: str) -> None:
    """Note nothing more of an upload whose owner has deleted it."""
    place = place_of(owner, id)
    claim = _claim(store, place)
    if claim not in (None, _USED):
        return  # another deletion may have listed files that come again, so they must not before it has ended
    store.delete(upload_claim(place))
    store.delete(upload_begun(place))


def named(store: ObjectStore, text: str) -> set[str]:
    """Return what stands behind `uploads/` in the addresses in a text: an owner and an id, or the start of them.

    Of a JSON object only what is called `uri` counts: class names and other words of a user name no upload.
    """
    with suppress(ValueError):
        if isinstance(record := json.loads(text), dict):
            text = " ".join(_uris(record))
    bucket = f"s3://{re.escape(store.bucket)}/"
    found = set(re.findall(rf'{bucket}{UPLOADS}([0-9a-f]*(?:/[0-9a-f]*)?)(?=[/"\s]|$)', text))
    above = re.findall(rf'{bucket}([a-z]*)(?=["\s]|$)', text)
    return found | {"" for start in above if UPLOADS.startswith(start)}


def _uris(record: object) -> Iterator[str]:
    """Yield the value of each `uri` in what JSON stood for."""
    if isinstance(record, dict):
        if isinstance(uri := record.get("uri"), str):
            yield uri
        record = list(record.values())
    if isinstance(record, list):
        for value in record:
            yield from _uris(value)


def use(store: ObjectStore, text: str) -> None:
    """Keep every upload that an address in a text names, or lies above, from now on.

    Raises UnknownUpload for one that is being deleted. If this returns, either all files of an upload are there and
    stay, or none is.
    """
    for start in named(store, text):
        for entry in list(store.list(UPLOADS_BEGUN + start)):
            _use(store, entry.key.removeprefix(UPLOADS_BEGUN))


class Uses:
    """Has uploads kept whose files a long list names, each with one request."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._prefix = store, f"s3://{store.bucket}/{UPLOADS}"
        self._seen: set[str] = set()

    def note(self, uri: str) -> None:
        """Take note of a file. One whose upload is being deleted is a bad row, and fails nothing else."""
        if not uri.startswith(self._prefix):
            return
        place = "/".join(uri[len(self._prefix) :].split("/", 2)[:2])
        if place not in self._seen and _PLACE.fullmatch(place):
            self._seen.add(place)
            with suppress(UnknownUpload):
                use(self._store, self._prefix + place)


def _use(store: ObjectStore, place: str) -> None:
    while not store.put_if_absent(upload_claim(place), _USED):
        claim = _claim(store, place)
        if claim is None:
            continue  # the deletion was called off, or has just ended
        if claim != _USED:
            raise _late(place)
        break
    store.delete(upload_begun(place))


def _claim(store: ObjectStore, place: str) -> bytes | None:
    try:
        return store.get(upload_claim(place))
    except ObjectNotFound:
        return None


# Deleting


def overdue(store: ObjectStore, before: float) -> Iterator[str]:
    """Yield the uploads that nobody used and that began before a time, as their owner's digest and their id."""
    for entry in store.list(UPLOADS_BEGUN):
        if entry.modified < before:
            yield entry.key.removeprefix(UPLOADS_BEGUN)


def is_used(store: ObjectStore, place: str) -> bool:
    """Return whether somebody uses an upload that is still noted as begun, because its process died in between."""
    return _claim(store, place) == _USED


def files(store: ObjectStore, place: str) -> list[Entry]:
    """Return the files of an upload."""
    return list(store.list(f"{UPLOADS}{place}/"))


def discard(store: ObjectStore, place: str, *, before: float, now: float) -> list[Entry]:
    """Delete an upload unless somebody uses it, somebody else deletes it, or anything came to it since `before`.

    Returns the files that were deleted. Raises InvalidSettings with credentials that may not delete it; it then stays
    as it was, or is used by nobody if some of it could be deleted.
    """
    claim, begun = upload_claim(place), upload_begun(place)
    mine = _DELETING + secrets.token_hex(8).encode()
    if not store.put_if_absent(claim, mine) and not _may_go_on(store, place, mine, now):
        return []
    found = files(store, place)
    if any(entry.modified >= before for entry in (*found, *store.list(begun))):
        store.delete(claim)
        return []
    try:
        store.delete_all(entry.key for entry in found)
    except InvalidSettings:
        if len(files(store, place)) == len(found):
            store.delete(claim)
        raise
    # The claim before the note: a note alone is found again.
    store.delete(claim)
    store.delete(begun)
    return found


def _may_go_on(store: ObjectStore, place: str, mine: bytes, now: float) -> bool:
    """Return whether a claim that was there is this one after all, whose answer was lost, or of one who died."""
    key, claim = upload_claim(place), _claim(store, place)
    if claim is None:
        return False
    if claim == _USED:
        store.delete(upload_begun(place))  # whoever used it ended before this step
        return False
    return claim == mine or any(entry.modified < now - _BROKEN_OFF_SECONDS for entry in store.list(key))


def _late(place: str) -> UnknownUpload:
    return UnknownUpload(
        f"The upload {place.rpartition('/')[2]} is being deleted, as nothing used it in time; upload its files again."
    )
