"""The controller's share of cleaning up: a little with each tick, so that reconciling never waits for it."""

from __future__ import annotations

import logging
import random

from contract.errors import InvalidSettings, JobConflict, ServiceUnavailable
from contract.jobs import retention
from contract.jobs.lifecycle import Backend
from contract.jobs.unused import expire_uploads
from contract.settings import Settings

log = logging.getLogger(__name__)

_ENTERED, _DELETED = 500, 20
"""Jobs that a tick enters into the index, and that it looks at to delete them."""
_SECONDS = 2.0
_LOCK_SECONDS = 60.0
_UPLOADS_SECONDS = 60.0


def clean(backend: Backend, settings: Settings) -> None:
    """Build the index if there is none, go on with interrupted deletions, delete jobs whose retention is over."""
    with backend.ledger.lock("clean", "", _LOCK_SECONDS) as lock:
        if lock is None:
            return
        retention.build(backend.store, _ENTERED)
        begun = retention.interrupted(backend.store)
        # At random, so that those which fail each time do not stand before the others.
        for job in random.sample(begun, min(_DELETED, len(begun))):
            try:
                retention.remove(backend, job)
            except JobConflict as error:
                log.info("%s", error)
            except ServiceUnavailable:
                raise
            except Exception:
                log.exception("The deletion of %s does not go on", job)
        for found in retention.expire(backend, settings.keep_days, most=_DELETED, seconds=_SECONDS):
            log.info("%s was deleted, its retention is over: %d bytes", found.job, found.bytes)
        # All notes of uploads are listed for this, so not with each tick.
        if settings.keep_uploads_days and backend.ledger.once_in(_UPLOADS_SECONDS, "unused uploads"):
            _expire_uploads(backend, settings)


def _expire_uploads(backend: Backend, settings: Settings) -> None:
    try:
        for found in expire_uploads(backend.store, settings.keep_uploads_days, seconds=_SECONDS):
            log.info("The upload %s was deleted, which nobody used: %d bytes", found.job, found.bytes)
    except InvalidSettings as error:
        log.warning("Uploads that nobody used stay: %s", error)
