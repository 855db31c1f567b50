"""Ends a job whose shards are done: counts from the commits, summary, label index, `_SUCCESS` last."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from typing import Any

from contract.data.items import parse_s3
from contract.jobs.lifecycle import (
    Backend,
    close,
    commit_keys,
    read_commit,
    read_end,
    read_plan,
    read_retries,
    read_spec,
    reopen,
    required_retries,
    settle,
)
from contract.jobs.specs import Classify, Evaluate, ImagesSpec, Train, Verify
from contract.jobs.status import Plan, ShardCommit
from contract.keys import QUEUE_GENERATE, JobKeys

log = logging.getLogger(__name__)

_LOCK_SECONDS = 120.0


def finalize(backend: Backend, job: str) -> None:
    """Write what the job came to. Harmless when run twice."""
    if backend.ledger.lock("finalize", job, _LOCK_SECONDS) is None:
        return
    try:
        if backend.ledger.state(job) == "finalizing":
            _finalize(backend, job)
    finally:
        backend.ledger.unlock("finalize", job)


def _finalize(backend: Backend, job: str) -> None:
    store = backend.store
    if read_end(store, job) is not None:
        settle(backend, job)
        return
    spec, plan = read_spec(store, job), read_plan(store, job)
    if isinstance(spec, ImagesSpec) and _handed_over(backend, job):
        return  # each tick comes here until it is concluded, and need not read every commit for that
    newest = commit_keys(store, job)
    commits = [read_commit(store, job, shard, retry) for shard, retry in sorted(newest.items())]
    ok, errors = sum(m.ok for m in commits), sum(m.errors for m in commits)
    over_budget = plan is not None and errors > spec.error_limit(plan.items)
    if plan is None or (not over_budget and _missing(backend, job, plan, commits)):
        log.warning("The ledger took %s for done and the bucket knows better: its books are written anew", job)
        reopen(backend, job)
        return
    if isinstance(spec, ImagesSpec):
        backend.queues.finalize_images(job)  # on a worker: that takes torch
        return
    if not isinstance(spec, Classify):
        _end_single(backend, spec, commits[0])
        return
    codes: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for commit in commits:
        codes.update(commit.error_codes)
        labels.update(commit.labels)
    _remove_superseded(backend, job, commits)
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
    status = backend.ledger.status(job)
    summary = {
        "id": job,
        "model": spec.model,
        "source": spec.source.label,
        "total": plan.items,
        "skipped": plan.skipped,
        **counts,
        "shards": len(commits),
        "created_at": status.created_at if status else None,
        "started_at": status.started_at if status else None,
    }
    store.put(f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode(), bucket=bucket)
    if over_budget:
        reason = f"{errors:,} of {plan.items:,} images failed, more than --max-errors {spec.max_errors} allows."
        close(backend, job, "failed", reason, **counts)
    elif ok + errors != plan.items:
        reason = f"The shards hold {ok + errors:,} rows and the plan {plan.items:,} items; start a new job."
        close(backend, job, "failed", reason, **counts)
    else:
        store.put(f"{prefix}_SUCCESS", b"", bucket=bucket)
        close(backend, job, "succeeded", **counts)


def _end_single(backend: Backend, spec: Train | Evaluate | Verify, commit: ShardCommit) -> None:
    """A job of one shard: what it made is there already, what is left is to say so."""
    bucket, prefix = parse_s3(spec.output)
    figures: dict[str, Any] = {"model": commit.model, "metrics": commit.metrics}
    summary = {"id": spec.id, "source": spec.source.label, **figures}
    backend.store.put(
        f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode(), bucket=bucket
    )
    close(backend, spec.id, "succeeded", ok=commit.ok, done=commit.ok, error_codes=commit.error_codes, **figures)


def _handed_over(backend: Backend, job: str) -> bool:
    """Whether a worker concludes what was generated, or the message for it waits."""
    return backend.ledger.locked("finalize_images", job) or (job,) in backend.ledger.messages((QUEUE_GENERATE,), 0)


def _missing(backend: Backend, job: str, plan: Plan, commits: list[ShardCommit]) -> bool:
    """Whether a shard of the plan, or a half of a bisected one, has no commit, or not its last retry's."""
    newest = {commit.shard: commit.retry for commit in commits}
    wanted = {*range(plan.shards), *(half for commit in commits for half in commit.split or ())}
    required = required_retries(read_retries(backend.store, job))
    return any(newest.get(shard, -1) < required.get(shard, 0) for shard in wanted)


def _remove_superseded(backend: Backend, job: str, commits: list[ShardCommit]) -> None:
    """After a retry `out/*.parquet` holds each row once again."""
    for commit in commits:
        for earlier in range(commit.retry):
            key = JobKeys(job).commit(commit.shard, earlier)
            if backend.store.exists(key):
                old = read_commit(backend.store, job, commit.shard, earlier)
                if old.output:
                    bucket, output = parse_s3(old.output)
                    backend.store.delete(output, bucket=bucket)
                backend.store.delete(key)


def _csv(labels: dict[str, int]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "images"])
    writer.writerows(labels.items())
    return text.getvalue().encode()
