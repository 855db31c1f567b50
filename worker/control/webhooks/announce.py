"""Makes messages of notes: reads what the bucket says of an end or a tick, and writes a message to each webhook.

A note only says where to look, so whoever may write notes, as workers may, can have nothing told that is not so.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, ObjectDamaged, ObjectNotFound, ServiceUnavailable, UnknownJob
from contract.jobs import index
from contract.jobs.lifecycle import read_spec
from contract.jobs.schedules import Schedules, Tick
from contract.jobs.specs import AnySpec
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from contract.keys.schedules import schedule_tick
from contract.keys.watches import parse_segment_job
from contract.keys.webhooks import WEBHOOK_NOTES, parse_webhook_note
from contract.web.webhooks.endpoints import Endpoints
from contract.web.webhooks.notes import webhook_of_all
from contract.web.webhooks.outbox import KEEP_DAYS, Event, Outbox

log = logging.getLogger(__name__)

_AT_ONCE = 50
"""Notes of a round; deliveries must not wait for a flood of ends."""
_LONGEST_REASON = 500
_MOST_CODES = 20
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#]\S*")


class Announcer:
    """Turns notes into messages. Safe to run in several controllers at once, which write the same messages."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._endpoints, self._outbox = Endpoints(store), Outbox(store)
        self._unread: set[str] = set()
        """Notes about what cannot be read; a newer controller may, or this one after a restart if it was restored."""

    def round(self) -> int:
        """Turn the notes that are there into messages; return how many are new."""
        fresh = 0
        notes = (entry.key for entry in self._store.list(WEBHOOK_NOTES) if entry.key not in self._unread)
        for key in list(islice(notes, _AT_ONCE)):
            try:
                fresh += self._announce(key)
            except ServiceUnavailable:
                raise
            except (InvalidInput, ObjectDamaged, ValueError) as error:
                log.warning("No webhook is told of %s: %s", key.removeprefix(WEBHOOK_NOTES), error)
                self._unread.add(key)
                continue
            self._store.delete(key)
        return fresh

    def _announce(self, key: str) -> int:
        fresh, now = 0, self._clock()
        for event, endpoint in self._told(key):
            if age_of(event, now) > KEEP_DAYS * 86_400:
                continue  # a message about it may have been delivered and forgotten
            if self._endpoints.find(endpoint) is None:
                continue
            disabled = self._endpoints.disabled(endpoint)
            fresh += self._outbox.add(event, endpoint, now, disabled=disabled.reason if disabled else "")
        return fresh

    def _told(self, key: str) -> Iterator[tuple[Event, str]]:
        """Yield what a note is about with each webhook to be told; nothing for what was deleted meanwhile."""
        found = parse_webhook_note(key)
        if found is None:
            return
        kind, name, what = found
        event, webhook = self._end(name, what) if kind == "job" else self._tick(name, what)
        if event is not None:
            for endpoint in dict.fromkeys((webhook, webhook_of_all(self._store))):
                if endpoint:
                    yield event, endpoint

    def _end(self, job: str, run: str) -> tuple[Event | None, str | None]:
        if not run.isdigit():
            return None, None
        try:
            spec = read_spec(self._store, job)
            end = Status.model_validate_json(self._store.get(JobKeys(job).run_end(int(run))))
        except (UnknownJob, ObjectNotFound):
            return None, None
        return end_event(spec, end, int(run)), spec.webhook

    def _tick(self, schedule: str, stamp: str) -> tuple[Event | None, str | None]:
        try:
            tick = Tick.model_validate_json(self._store.get(schedule_tick(schedule, stamp)))
        except ObjectNotFound:
            return None, None
        found = Schedules(self._store).find(schedule)
        webhook = found.template.spec.get("webhook") if found is not None else None
        return tick_event(schedule, stamp, tick), webhook


def end_event(spec: AnySpec, end: Status, run: int) -> Event:
    """Return the event of a job's end; the end of a watch's segment is one of the watch."""
    data: dict[str, Any] = {
        "job": spec.id,
        "run": run,
        "kind": end.kind,
        "state": end.state,
        "model": end.model or spec.model,
        "owner": end.owner,
        "total": end.total,
        "ok": end.ok,
        "errors": end.errors,
        "error_codes": dict(islice((end.error_codes or {}).items(), _MOST_CODES)),
        "reason": _said(end.reason),
        "created_at": end.created_at,
        "started_at": end.started_at,
        "finished_at": end.finished_at,
        "output": spec.output,
    }
    type = f"job.{end.state}"
    segment = parse_segment_job(spec.id) if spec.source.kind == "watch" else None
    if segment is not None:
        type, data = "watch.segment_closed", {"watch": segment[0], "segment": segment[2], **data}
    return Event(type, f"job/{spec.id}/{run}", index.ended_ms(end), data)


def tick_event(schedule: str, stamp: str, tick: Tick) -> Event | None:
    """Return the event of a schedule's tick; None for one that was skipped."""
    if tick.state == "skipped":
        return None
    data = {"schedule": schedule, "at": tick.at, "job": tick.job, "after": tick.after, "reason": _said(tick.reason)}
    at_ms = int(datetime.fromisoformat(tick.at).timestamp() * 1000)
    type = "schedule.started" if tick.state == "submitted" else "schedule.failed"
    return Event(type, f"tick/{schedule}/{stamp}", at_ms, data)


def age_of(event: Event, now: float) -> float:
    """Return how many seconds ago something happened."""
    return now - event.at_ms / 1000


def _said(reason: str | None) -> str | None:
    """Return a reason for strangers: short, and without the queries of addresses, which may be signatures."""
    return None if reason is None else _QUERY.sub(r"\1?…", reason)[:_LONGEST_REASON]
