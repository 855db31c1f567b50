"""Notes of what happened, for the controller to make messages of. A note is empty: it claims nothing but its name."""

from __future__ import annotations

import logging

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, ObjectNotFound
from contract.keys.webhooks import WEBHOOK_NOTES, WEBHOOK_OF_ALL, webhook_end_note, webhook_tick_note

log = logging.getLogger(__name__)


def webhook_of_all(store: ObjectStore) -> str | None:
    """Return the webhook that is told of everything, or None."""
    try:
        return store.get(WEBHOOK_OF_ALL).decode()
    except ObjectNotFound:
        return None


def note_end(store: ObjectStore, job: str, run: int, webhook: str | None) -> None:
    """Note that a run of a job has ended, if anybody wants to be told. It is safe to do twice."""
    _note(store, webhook_end_note(job, run), webhook)


def note_tick(store: ObjectStore, schedule: str, stamp: str, webhook: str | None) -> None:
    """Note that a tick of a schedule was decided, if anybody wants to be told. It is safe to do twice."""
    _note(store, webhook_tick_note(schedule, stamp), webhook)


def _note(store: ObjectStore, key: str, webhook: str | None) -> None:
    try:
        if webhook or webhook_of_all(store):
            store.put(key, b"")
    except InvalidSettings as error:
        # Credentials under an older policy; a job must end all the same.
        log.error("No webhook is told of %s: %s", key.removeprefix(WEBHOOK_NOTES), error)
