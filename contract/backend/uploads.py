"""Uploads of clients of the HTTP API: kept from their first use on, and deleted if nobody used them in time.

    index/uploads/begun/<owner>/<id>      addresses were handed out for it, and nobody used it yet; empty
    index/uploads/claimed/<owner>/<id>    `used`, or `deleting` and by whom; written if absent

A job or a schedule uses an upload by naming it or a prefix above it, and a manifest by listing a file of it.
The claim is written once, so a use and a deletion at the same moment have one winner, and the other one learns of it.
What was used is deleted by its owner alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

from contract import keys
from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, ObjectNotFound, UnknownUpload

_USED, _DELETING = b"used", b"deleting "
_BROKEN_OFF_SECONDS = 86_400
"""Age of a claim whose deletion has ended before it was done, so that another one goes on."""


def place_of(owner: str, id: str) -> str:
    """Return what stands behind `uploads/` in the addresses of the files of an upload."""
    return keys.upload_prefix(owner, id).removeprefix(keys.UPLOADS).rstrip("/")


def begin(store: ObjectStore, owner: str, id: str) -> None:
    """Note that files may come to an upload from now on; raises UnknownUpload if it is being deleted."""
    place = place_of(owner, id)
    # The note first, and then the claim; a deletion claims, and then looks whether a note has come.
    store.put(keys.upload_begun(place), b"")
    try:
        claim = store.get(keys.upload_claim(place))
    except ObjectNotFound:
        return
    if claim != _USED:
        raise _late(place)
    store.delete(keys.upload_begun(place))


def forget(store: ObjectStore, owner: str, id: str) -> None:
    """Note nothing more of an upload whose owner has deleted it."""
    place = place_of(owner, id)
    store.delete(keys.upload_claim(place))
    store.delete(keys.upload_begun(place))


def named(store: ObjectStore, text: str) -> set[str]:
    """Return what stands behind `uploads/` in the addresses in a text: an owner and an id, or the start of them."""
    return set(re.findall(rf"s3://{re.escape(store.bucket)}/{keys.UPLOADS}([0-9a-f]*(?:/[0-9a-f]*)?)", text))


def use(store: ObjectStore, text: str) -> None:
    """Keep every upload that an address in a text names, or lies above, from now on.

    Raises UnknownUpload for one that is being deleted. If this returns, either all files of an upload are there and
    stay, or none is.
    """
    for start in named(store, text):
        for entry in list(store.list(keys.UPLOADS_BEGUN + start)):
            _use(store, entry.key.removeprefix(keys.UPLOADS_BEGUN))


class Uses:
    """Has uploads kept whose files a long list names, each with one request."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._prefix = store, f"s3://{store.bucket}/{keys.UPLOADS}"
        self._seen: set[str] = set()

    def note(self, uri: str) -> None:
        """Take note of a file; raises UnknownUpload if its upload is being deleted."""
        if not uri.startswith(self._prefix):
            return
        place = "/".join(uri[len(self._prefix) :].split("/", 2)[:2])
        if place not in self._seen:
            use(self._store, self._prefix + place)
            self._seen.add(place)


def _use(store: ObjectStore, place: str) -> None:
    while not store.put_if_absent(keys.upload_claim(place), _USED):
        try:
            claim = store.get(keys.upload_claim(place))
        except ObjectNotFound:
            continue  # the deletion was called off, or has just ended
        if claim != _USED:
            raise _late(place)
        break
    store.delete(keys.upload_begun(place))


# Deleting


def overdue(store: ObjectStore, before: float) -> Iterator[str]:
    """Yield the uploads that nobody used and that began before a time, as their owner's digest and their id."""
    for entry in store.list(keys.UPLOADS_BEGUN):
        if entry.modified < before:
            yield entry.key.removeprefix(keys.UPLOADS_BEGUN)


def is_used(store: ObjectStore, place: str) -> bool:
    """Return whether somebody uses an upload that is still noted as begun, because its process died in between."""
    try:
        return store.get(keys.upload_claim(place)) == _USED
    except ObjectNotFound:
        return False


def files(store: ObjectStore, place: str) -> list[Entry]:
    """Return the files of an upload."""
    return list(store.list(f"{keys.UPLOADS}{place}/"))


def discard(store: ObjectStore, place: str, *, before: float, now: float) -> list[Entry]:
    """Delete an upload unless somebody uses it, somebody else deletes it, or anything came to it since `before`.

    Returns the files that were deleted. Raises InvalidSettings with credentials that may delete no upload; it then
    stays as it was.
    """
    claim, begun = keys.upload_claim(place), keys.upload_begun(place)
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
        store.delete(claim)
        raise
    # The claim before the note: a note alone is found again.
    store.delete(claim)
    store.delete(begun)
    return found


def _may_go_on(store: ObjectStore, place: str, mine: bytes, now: float) -> bool:
    """Return whether a claim that was there is this one after all, whose answer was lost, or of one who died."""
    key = keys.upload_claim(place)
    try:
        claim = store.get(key)
    except ObjectNotFound:
        return False
    if claim == _USED:
        store.delete(keys.upload_begun(place))  # whoever used it ended before this step
        return False
    return claim == mine or any(entry.modified < now - _BROKEN_OFF_SECONDS for entry in store.list(key))


def _late(place: str) -> UnknownUpload:
    return UnknownUpload(
        f"The upload {place.rpartition('/')[2]} is being deleted, as nothing used it in time; upload its files again."
    )
