"""Counts in the bucket how often finalizing a job raised what nobody foresaw, and on which processes.

One such error may be a fault of the machine. Another process tries again, and the job fails only once several have.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound, StoreRefused
from contract.keys.jobs import JobKeys
from contract.records import Record

log = logging.getLogger(__name__)


class FinishFaults(Record):
    """The attempts at ending a run that raised; times are seconds since the epoch."""

    run: int
    attempts: int = 0
    processes: tuple[str, ...] = ()
    first: float = 0.0
    last: float = 0.0

    def waits(self, process: str, seconds: float, now: float) -> bool:
        """Return whether `process`, which raised before, leaves others `seconds` to try; a clock set back ends that."""
        return process in self.processes and 0 <= now - self.last < seconds

    def plus(self, process: str, now: float) -> FinishFaults:
        return FinishFaults(
            run=self.run,
            attempts=self.attempts + 1,
            processes=tuple(dict.fromkeys((*self.processes, process))),
            first=self.first or now,
            last=now,
        )

    def enough(self, attempts: int, seconds: float) -> bool:
        """Return whether the job fails, after so many attempts, the first and the last at least `seconds` apart."""
        return self.attempts >= attempts and self.last - self.first >= seconds


def read_faults(store: ObjectStore, job: str, run: int) -> FinishFaults:
    """Return the faults of a run; a run that `resume` or `retry` opened begins with none."""
    with suppress(ObjectNotFound, ValidationError):
        found = FinishFaults.model_validate_json(store.get(JobKeys(job).finishing, limit=2**16))
        if found.run == run:
            return found
    return FinishFaults(run=run)


def add_fault(store: ObjectStore, job: str, run: int, process: str) -> FinishFaults:
    """Count a fault and return all of the run; a bucket that is full only forgets them."""
    found = read_faults(store, job, run).plus(process, time.time())
    try:
        store.put(JobKeys(job).finishing, found.to_json())
    except StoreRefused as error:
        log.warning("The faults of finalizing %s are not kept: %s", job, error)
    return found
