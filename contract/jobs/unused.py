"""Deletes uploads over the HTTP API that no job or schedule used for days."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress

from contract.backend import uploads
from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.jobs.retention import Found
from contract.jobs.schedules import Schedules

_SHORTEST_SECONDS = 2 * 3600.0
"""An address for a file is good for an hour; what may still come is not old."""


def expire_uploads(
    store: ObjectStore, days: float, *, dry_run: bool = False, seconds: float = math.inf
) -> Iterator[Found]:
    """Delete the uploads that nobody used for `days`, 0 being for ever, for about `seconds`; yield each.

    What lies below a prefix that a schedule names stays: its next job uses it. No watch can follow uploads.
    """
    if not days:
        return
    now, until = time.time(), time.monotonic() + seconds
    before = now - max(days * 86_400, _SHORTEST_SECONDS)
    followed: tuple[str, ...] | None = None
    for place in uploads.overdue(store, before):
        if time.monotonic() > until:
            return
        if followed is None:
            followed = _followed(store)
        if place.startswith(followed):
            continue
        found = uploads.files(store, place)
        if any(entry.modified >= before for entry in found):
            continue  # a claim would refuse jobs meanwhile
        if not dry_run:
            found = uploads.discard(store, place, before=before, now=now)
        elif uploads.is_used(store, place):
            continue
        if found:
            yield Found("unused upload", place.rpartition("/")[2], len(found), sum(entry.size for entry in found))


def _followed(store: ObjectStore) -> tuple[str, ...]:
    """Return what schedules name of uploads.

    One that is added later claims what is there before its record is written (`uploads.use`).
    """
    found: set[str] = set()
    for name in Schedules(store).names():
        with suppress(ObjectNotFound):  # it was removed a moment ago
            found |= uploads.named(store, store.get(Schedules.key(name)).decode(errors="replace"))
    return tuple(found)
