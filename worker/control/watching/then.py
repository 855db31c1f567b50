"""Starts the command of a schedule once for each segment of a watch that has succeeded.

What a segment's end starts is decided once: the record, which holds the whole spec of the job, is written only if
absent, and the job is submitted afterwards, under an id that follows from the segment. Two controllers, and one that
dies between the two, start one job.

    <root>then/000003.json      what was decided about segment 3
    <root>then/000003.begun     its job was submitted
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from contract.errors import (
    DatasetBusy,
    ImagemillError,
    JobConflict,
    NothingMissing,
    ServiceUnavailable,
    UnknownSchedule,
)
from contract.jobs.ends import read_standing
from contract.jobs.lifecycle import Backend, submit
from contract.jobs.schedules import Schedule, Schedules, Tick, to_iso
from contract.jobs.specs import parse_spec
from contract.jobs.status import Status
from contract.jobs.templates import fill
from contract.keys.jobs import JobKeys
from contract.keys.watches import parse_then, watch_then, watch_then_begun, watch_thens
from contract.watches.record import Watch
from contract.watches.segments import read_segment, segment_numbers
from contract.web.webhooks.notes import note_tick

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0


def job_after(schedule: str, segment: str) -> str:
    """Return the id of the job that a schedule makes after the job of a segment."""
    return f"{schedule}-after-{hashlib.sha256(segment.encode()).hexdigest()[:12]}"


class Then:
    """What the ends of one watch's segments start, as one controller knows it. Not safe for threads."""

    def __init__(self, backend: Backend, watch: Watch, clock: Callable[[], float] = time.time) -> None:
        self._backend, self._store, self._watch, self._clock = backend, backend.store, watch, clock
        self._done: set[int] | None = None
        """Segments about which nothing is left to do."""
        self._due = 0.0

    def round(self) -> None:
        """Look again if it is time to; what cannot be done now waits, and the watch goes on."""
        if time.monotonic() < self._due:
            return
        try:
            self.look()
        except ImagemillError as error:
            log.warning("What %s starts after a segment waits: %s", self._watch.name, error)
        self._due = time.monotonic() + _LOOK_SECONDS

    def look(self) -> None:
        """Decide about the segments that have ended, and submit what was decided.

        Raises what the store and the ledger raise, and DatasetBusy if the job must wait for another one.
        """
        if self._done is None:
            self._done = self._recovered()
        numbers = segment_numbers(self._store, self._watch.root)
        for number in [number for number in numbers if number not in self._done]:
            segment = read_segment(self._store, self._watch.root, number)
            if segment.job:
                end = read_standing(self._store, segment.job).end
                deleted = number != numbers[-1] and not self._store.exists(JobKeys(segment.job).spec)
                if end is None and not deleted:
                    continue
                self._carry_out(number, self._decide(number, segment.job, end))
            self._done.add(number)

    def _recovered(self) -> set[int]:
        """Return the segments that are done, after submitting what was decided and perhaps not submitted."""
        found = [parse_then(entry.key) for entry in self._store.list(watch_thens(self._watch.root))]
        begun = {one[0] for one in found if one and one[1]}
        decided = {one[0] for one in found if one and not one[1]}
        for number in sorted(decided - begun):
            key = watch_then(self._watch.root, number)
            self._carry_out(number, Tick.model_validate_json(self._store.get(key)))
        return decided

    def _decide(self, number: int, job: str, end: Status | None) -> Tick:
        """Write what a segment's end starts; return the decision that stands, which may be another controller's."""
        key = watch_then(self._watch.root, number)
        tick = self._decision(job, end)
        if self._store.put_if_absent(key, tick.to_json()):
            return tick
        return Tick.model_validate_json(self._store.get(key))

    def _decision(self, job: str, end: Status | None) -> Tick:
        now = datetime.fromtimestamp(self._clock(), UTC)
        at = to_iso(now)
        if end is None or end.state != "succeeded":
            how = "was deleted" if end is None else "was canceled" if end.state == "canceled" else f"has {end.state}"
            return Tick(at=at, state="skipped", reason=f"The segment {job} {how}.", after=job)
        try:
            schedule = Schedules(self._store).get(self._watch.then)
            id = job_after(schedule.name, job)
            spec = fill(schedule.template, id=id, store=self._store, at=now, segment=(self._watch.name, job))
        except (ServiceUnavailable, DatasetBusy):
            raise  # the next look tries again
        except NothingMissing as error:
            return Tick(at=at, state="skipped", reason=str(error), after=job)
        except ImagemillError as error:
            log.warning("The segment %s starts no job: %s", job, error)
            return Tick(at=at, state="failed", reason=str(error), after=job)
        return Tick(at=at, state="submitted", job=id, spec=spec.model_dump(mode="json"), after=job)

    def _carry_out(self, number: int, tick: Tick) -> None:
        """Submit the job of a decision, and enter it in the history of the schedule. It is safe to do twice."""
        try:
            schedule: Schedule | None = Schedules(self._store).get(self._watch.then)
        except UnknownSchedule:
            schedule = None
        if tick.state == "submitted":
            try:
                fresh = submit(self._backend, parse_spec(tick.spec), schedule.owner if schedule else self._watch.owner)
            except (ServiceUnavailable, DatasetBusy):
                raise
            except ImagemillError as error:
                log.warning("%s starts no job: %s", tick.after, error)
                tick = tick.model_copy(
                    update={"state": "failed", "job": None, "spec": None, "reason": _why(tick, error)}
                )
                self._store.put(watch_then(self._watch.root, number), tick.to_json())
            else:
                if fresh:
                    log.info("The segment %s has succeeded and starts %s", tick.after, tick.job)
        if schedule is not None:
            place = Schedules(self._store).after(schedule.name, tick)
            if tick.state != "skipped":
                note_tick(self._store, schedule.name, place, schedule.template.spec.get("webhook"))
        self._store.put(watch_then_begun(self._watch.root, number), b"")


def _why(tick: Tick, error: ImagemillError) -> str:
    if isinstance(error, JobConflict):
        return f"The id {tick.job} belongs to another job; `imagemill show {tick.job}` shows it."
    return str(error)
