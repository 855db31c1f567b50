"""Ends a job whose shards are done: counts from the markers, summary, label index, `_SUCCESS` last."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from typing import Any

from contract.data.items import parse_s3
from contract.jobs.lifecycle import (
    House,
    close,
    marker_keys,
    read_end,
    read_marker,
    read_plan,
    read_retries,
    read_spec,
    reopen,
    required_retries,
    settle,
)
from contract.jobs.specs import Classify, Evaluate, ImagesSpec, Train, Verify
from contract.jobs.status import Marker, Plan
from contract.keys import QUEUE_GENERATE, JobKeys

log = logging.getLogger(__name__)

_LOCK_SECONDS = 120.0


def finalize(house: House, job: str) -> None:
    """Write what the job came to. Harmless when run twice."""
    if house.ledger.lock("finalize", job, _LOCK_SECONDS) is None:
        return
    try:
        if house.ledger.state(job) == "finalizing":
            _finalize(house, job)
    finally:
        house.ledger.unlock("finalize", job)


def _finalize(house: House, job: str) -> None:
    store = house.store
    if read_end(store, job) is not None:
        settle(house, job)
        return
    spec, plan = read_spec(store, job), read_plan(store, job)
    if isinstance(spec, ImagesSpec) and _handed_over(house, job):
        return  # each tick comes here until it is concluded, and need not read every commit for that
    newest = marker_keys(store, job)
    markers = [read_marker(store, job, shard, retry) for shard, retry in sorted(newest.items())]
    ok, errors = sum(m.ok for m in markers), sum(m.errors for m in markers)
    over_budget = plan is not None and errors > spec.error_limit(plan.items)
    if plan is None or (not over_budget and _missing(house, job, plan, markers)):
        log.warning("The ledger took %s for done and the bucket knows better: its books are written anew", job)
        reopen(house, job)
        return
    if isinstance(spec, ImagesSpec):
        house.queues.conclude(job)  # on a worker: that takes torch
        return
    if not isinstance(spec, Classify):
        _end_single(house, spec, markers[0])
        return
    codes: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for marker in markers:
        codes.update(marker.error_codes)
        labels.update(marker.labels)
    _remove_superseded(house, job, markers)
    bucket, prefix = parse_s3(spec.output)
    ranked = dict(labels.most_common())
    store.put(f"{prefix}labels.csv", _csv(ranked), bucket=bucket)
    counts: dict[str, Any] = {
        "ok": ok,
        "errors": errors,
        "done": ok + errors,
        "error_codes": dict(codes),
        "labels": ranked,
    }
    status = house.ledger.status(job)
    summary = {
        "id": job,
        "model": spec.model,
        "source": spec.source.label,
        "total": plan.items,
        "skipped": plan.skipped,
        **counts,
        "shards": len(markers),
        "created_at": status.created_at if status else None,
        "started_at": status.started_at if status else None,
    }
    store.put(f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode(), bucket=bucket)
    if over_budget:
        reason = f"{errors:,} of {plan.items:,} images failed, more than --max-errors {spec.max_errors} allows."
        close(house, job, "failed", reason, **counts)
    elif ok + errors != plan.items:
        reason = f"The shards hold {ok + errors:,} rows and the plan {plan.items:,} items; start a new job."
        close(house, job, "failed", reason, **counts)
    else:
        store.put(f"{prefix}_SUCCESS", b"", bucket=bucket)
        close(house, job, "succeeded", **counts)


def _end_single(house: House, spec: Train | Evaluate | Verify, marker: Marker) -> None:
    """A job of one shard: what it made is there already, what is left is to say so."""
    bucket, prefix = parse_s3(spec.output)
    figures: dict[str, Any] = {"model": marker.model, "metrics": marker.metrics}
    summary = {"id": spec.id, "source": spec.source.label, **figures}
    house.store.put(f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode(), bucket=bucket)
    close(house, spec.id, "succeeded", ok=marker.ok, done=marker.ok, error_codes=marker.error_codes, **figures)


def _handed_over(house: House, job: str) -> bool:
    """Whether a worker concludes what was generated, or the message for it waits."""
    return house.ledger.locked("conclude", job) or (job,) in house.ledger.messages((QUEUE_GENERATE,), 0)


def _missing(house: House, job: str, plan: Plan, markers: list[Marker]) -> bool:
    """Whether a shard of the plan, or a half of a bisected one, has no commit, or not its last retry's."""
    newest = {marker.shard: marker.retry for marker in markers}
    wanted = {*range(plan.shards), *(half for marker in markers for half in marker.split or ())}
    required = required_retries(read_retries(house.store, job))
    return any(newest.get(shard, -1) < required.get(shard, 0) for shard in wanted)


def _remove_superseded(house: House, job: str, markers: list[Marker]) -> None:
    """After a retry `out/*.parquet` holds each row once again."""
    for marker in markers:
        for earlier in range(marker.retry):
            key = JobKeys(job).marker(marker.shard, earlier)
            if house.store.exists(key):
                old = read_marker(house.store, job, marker.shard, earlier)
                if old.output:
                    bucket, output = parse_s3(old.output)
                    house.store.delete(output, bucket=bucket)
                house.store.delete(key)


def _csv(labels: dict[str, int]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "images"])
    writer.writerows(labels.items())
    return text.getvalue().encode()
