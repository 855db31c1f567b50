"""The ends of a job in the bucket: one for each of its runs, written only if absent, never changed.

A job is in its first run until it ends. `resume` and `retry` of a job that has ended open its next run. Whoever writes
the end of a run first decides it: everybody else, the ledger included, follows what stands. What is there for other
tools (`_SUCCESS`, the summary) is derived from the end that stands, by whoever comes along.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import InvalidSettings, InvalidSource, ObjectNotFound, StoreFull, StoreRefused
from contract.instruments import JOBS_ENDED
from contract.jobs import index
from contract.jobs.kinds import kind_of
from contract.jobs.specs import Spec
from contract.jobs.status import Retry, RunStart, Status
from contract.keys.jobs import JobKeys, parse_run
from contract.printable import csv_line
from contract.telemetry import traces
from contract.times import iso
from contract.web.webhooks.notes import note_end

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """The newest run of a job, and how it ended; None while it is open."""

    run: int
    end: Status | None


def read_standing(store: ObjectStore, id: str) -> Standing:
    """Return where a job stands; one that does not exist is open."""
    first = _read(store, JobKeys(id).end)
    if first is None:
        return Standing(0, None)
    newest, ended = 0, {0}
    for entry in store.list(JobKeys(id).run_prefix):
        found = parse_run(entry.key)
        if found and found[1] == "end":
            ended.add(found[0])
        elif found:
            newest = max(newest, found[0])
    if newest not in ended:
        return Standing(newest, None)
    return Standing(newest, first if newest == 0 else _read(store, JobKeys(id).run_end(newest)))


def read_end(store: ObjectStore, id: str) -> Status | None:
    """Return the final status of a job, or None while it has not ended, or runs again."""
    return read_standing(store, id).end


def write_end(store: ObjectStore, id: str, run: int, end: Status) -> Status:
    """End a run; return the end that stands, which is another's if it was first."""
    key = JobKeys(id).run_end(run)
    if store.put_if_absent(key, end.to_json()):
        JOBS_ENDED.add(1, end.kind, end.state)
        _trace(run, end)
    else:
        end = _read(store, key) or end
    return end


def _trace(run: int, end: Status) -> None:
    """Record the span of a job that ended here."""
    error = (end.reason or end.state) if end.state == "failed" else ""
    said: dict[str, str | int] = {"kind": end.kind, "state": end.state, "model": end.model}
    counts = {"images": end.ok, "errors": end.errors, "shards": end.shards.total}
    until = end.finished_at or end.created_at
    traces.ended(end.id, end.created_at, until, again=run > 0, error=error, attributes={**said, **counts})


def open_run(store: ObjectStore, id: str, run: int, retry: Retry | None = None) -> bool:
    """Open a run of a job whose last one has ended; return False if somebody else did."""
    key = JobKeys(id).run_start(run)
    start = RunStart(run=run, opened_at=iso(time.time()) or "", token=secrets.token_hex(8), retry=retry)
    # The answer to a write may be lost: whose token is there has opened it.
    return store.put_if_absent(key, start.to_json()) or RunStart.model_validate_json(store.get(key)) == start


def publish(store: ObjectStore, spec: Spec) -> Standing:
    """Make what is derived from the end agree with it: summary, label counts, `_SUCCESS`, the index, the active jobs.

    It may run at any time, in several processes at once: each looks again after it has written, so the last to write
    leaves what agrees. Return where the job stands.
    """
    now = read_standing(store, spec.id)
    while True:
        _derive(store, spec, now)
        again = read_standing(store, spec.id)
        if again == now:
            return now
        now = again


def _derive(store: ObjectStore, spec: Spec, now: Standing) -> None:
    keys = JobKeys(spec.id)
    succeeded = now.end is not None and now.end.state == "succeeded"
    if now.end is None:
        store.put(keys.active, b"")
        # Behind that, so that a job is always in the index or among the active ones.
        index.remove_earlier(store, spec, now.run)
    try:
        _derive_outputs(store, spec, now)
    except StoreFull:
        raise
    except (InvalidSource, InvalidSettings, StoreRefused) as error:
        # The prefix may be another's bucket, which was removed or closed meanwhile; the job has ended all the same.
        log.error("The summary of %s cannot be written: %s", spec.id, error)
    if succeeded:
        store.put(keys.success, b"")
    elif now.run:
        store.delete(keys.success)
    if now.end is not None:
        # Before the job is no longer active, so that a process that dies here is followed by another.
        note_end(store, spec.id, now.run, spec.webhook)
        # First, so that a job is always in the index or among the active ones.
        index.record_end(store, spec, now.end, now.run)
        store.delete(keys.active)


def _derive_outputs(store: ObjectStore, spec: Spec, now: Standing) -> None:
    bucket, prefix = parse_s3(spec.output)
    files = summary(spec, now.end) if now.end is not None else {}
    for name, data in files.items():
        store.put(f"{prefix}{name}", data, bucket=bucket)
    if now.end is not None and now.end.state == "succeeded":
        store.put(f"{prefix}_SUCCESS", b"", bucket=bucket)
    elif now.run:
        # An earlier run may have left them. In its first run a job has none before it has succeeded.
        outdated = {"_SUCCESS", *DERIVED} - files.keys()
        if now.end is not None and kind_of(spec).makes == "images":
            outdated -= set(DERIVED)  # its finalizer writes them
        for name in sorted(outdated):
            store.delete(f"{prefix}{name}", bucket=bucket)


DERIVED = ("labels.csv", "summary.json")
"""Files below the output prefix that are derived from an end."""


def summary(spec: Spec, end: Status) -> dict[str, bytes]:
    """Return the files that describe a run which its finalizer ended, by name; none for any other end.

    The finalizer of generated images writes its own summary, since an end does not hold everything that is in it.
    """
    makes = kind_of(spec).makes
    if makes == "labels" and end.labels is not None:
        return {"labels.csv": _csv(end.labels), "summary.json": _json(_labels_summary(spec, end))}
    if makes in ("model", "figures") and end.state == "succeeded":
        figures = {"id": spec.id, "source": spec.source.label, "model": end.model, "metrics": end.metrics or {}}
        return {"summary.json": _json(figures)}
    return {}


def _labels_summary(spec: Spec, end: Status) -> dict[str, Any]:
    return {
        "id": spec.id,
        "state": end.state,
        "model": spec.model,
        "source": spec.source.label,
        "total": end.total,
        "skipped": end.skipped,
        "ok": end.ok,
        "errors": end.errors,
        "done": end.done,
        "error_codes": end.error_codes,
        "labels": end.labels,
        "shards": end.shards.done,
        "created_at": end.created_at or None,
        "started_at": end.started_at,
    }


def _json(summary: dict[str, Any]) -> bytes:
    return json.dumps(summary, indent=1, ensure_ascii=False).encode()


def _csv(labels: dict[str, int]) -> bytes:
    return "".join(map(csv_line, [("label", "images"), *labels.items()])).encode()


def _read(store: ObjectStore, key: str) -> Status | None:
    try:
        return Status.model_validate_json(store.get(key))
    except ObjectNotFound:
        return None
