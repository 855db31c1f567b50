"""Counts in the bucket how often the planner of a job ended badly, so that the count survives controllers and Redis."""

from __future__ import annotations

import logging
from contextlib import suppress

from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound, StoreRefused
from contract.keys.jobs import JobKeys
from contract.records import Record

log = logging.getLogger(__name__)


class PlanAttempts(Record):
    """The attempts at planning a run of a job that have begun and not ended well, and how the last known one ended."""

    run: int
    attempts: int = 0
    reason: str = ""


def read_attempts(store: ObjectStore, job: str, run: int) -> PlanAttempts:
    """Return the attempts at a run; a run that `resume` or `retry` opened begins with none."""
    with suppress(ObjectNotFound, ValidationError):
        found = PlanAttempts.model_validate_json(store.get(JobKeys(job).planning, limit=2**16))
        if found.run == run:
            return found
    return PlanAttempts(run=run)


def write_attempts(store: ObjectStore, job: str, found: PlanAttempts) -> None:
    """Keep the attempts; a bucket that is full only forgets them."""
    try:
        store.put(JobKeys(job).planning, found.to_json())
    except StoreRefused as error:
        log.warning("The attempts at planning %s are not kept: %s", job, error)
