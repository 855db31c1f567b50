"""End jobs whose shards are done: counts from the commits, summary, `labels.csv`, and `_SUCCESS` last.

The record of a kind in `contract.jobs.kinds` names its finalizer. What takes torch is handed to a worker.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from typing import Any

from contract.data.items import parse_s3
from contract.import_paths import load
from contract.jobs.kinds import kind_of
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
from contract.jobs.specs import Classify, Evaluate, ImagesSpec, Spec, Train, Verify
from contract.jobs.status import Plan, ShardCommit
from contract.keys import QUEUE_GENERATE, JobKeys

log = logging.getLogger(__name__)

_LOCK_SECONDS = 120.0


def finalize(backend: Backend, job: str) -> None:
    """End a job whose shards are done. It is safe to run twice."""
    with backend.ledger.lock("finalize", job, _LOCK_SECONDS) as lock:
        if lock is None or backend.ledger.state(job) != "finalizing":
            return
        if read_end(backend.store, job) is not None:
            settle(backend, job)
            return
        spec = read_spec(backend.store, job)
        load(kind_of(spec).finalize)(backend, spec)


def _committed(backend: Backend, spec: Spec) -> tuple[Plan, list[ShardCommit]] | None:
    """Return the plan and each shard's newest commit, or None if the bucket lacks some: then the job is reopened.

    Commits may be missing if the error budget is exceeded: the job then ends with what there is.
    """
    store, job = backend.store, spec.id
    plan, newest = read_plan(store, job), commit_keys(store, job)
    commits = [read_commit(store, job, shard, retry) for shard, retry in sorted(newest.items())]
    if plan is not None:
        over_budget = sum(commit.errors for commit in commits) > spec.error_limit(plan.items)
        if over_budget or not _missing(backend, job, plan, commits):
            return plan, commits
    log.warning("The ledger says that %s is done, but the bucket lacks commits; the ledger is rebuilt", job)
    reopen(backend, job)
    return None


def hand_over(backend: Backend, spec: ImagesSpec) -> None:
    """Have a worker end a job that generates images."""
    # Every tick comes here until the job has ended, and need not read every commit each time.
    if not _handed_over(backend, spec.id) and _committed(backend, spec) is not None:
        backend.queues.finish(spec.id)


def end_labels(backend: Backend, spec: Classify) -> None:
    """End a job that labels: delete rows that a retry replaced, write `labels.csv` and the summary."""
    found = _committed(backend, spec)
    if found is None:
        return
    plan, commits = found
    store, job = backend.store, spec.id
    ok, errors = sum(m.ok for m in commits), sum(m.errors for m in commits)
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
    if errors > spec.error_limit(plan.items):
        reason = f"{errors:,} of {plan.items:,} images failed, more than --max-errors {spec.max_errors} allows."
        close(backend, job, "failed", reason, **counts)
    elif ok + errors != plan.items:
        reason = f"The shards hold {ok + errors:,} rows and the plan {plan.items:,} items; start a new job."
        close(backend, job, "failed", reason, **counts)
    else:
        store.put(f"{prefix}_SUCCESS", b"", bucket=bucket)
        close(backend, job, "succeeded", **counts)


def end_single(backend: Backend, spec: Train | Evaluate | Verify) -> None:
    """End a job of one shard, whose result is complete already."""
    found = _committed(backend, spec)
    if found is None:
        return
    (commit,) = found[1]
    bucket, prefix = parse_s3(spec.output)
    figures: dict[str, Any] = {"model": commit.model or spec.model, "metrics": commit.metrics}
    summary = {"id": spec.id, "source": spec.source.label, **figures}
    backend.store.put(
        f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode(), bucket=bucket
    )
    close(backend, spec.id, "succeeded", ok=commit.ok, done=commit.ok, error_codes=commit.error_codes, **figures)


def _handed_over(backend: Backend, job: str) -> bool:
    """Return whether a worker is ending the job, or a message for one is waiting."""
    return backend.ledger.locked("finish", job) or (job,) in backend.ledger.messages((QUEUE_GENERATE,), 0)


def _missing(backend: Backend, job: str, plan: Plan, commits: list[ShardCommit]) -> bool:
    """Return whether a planned shard, or half of a bisected one, lacks a commit, or that of its last retry."""
    newest = {commit.shard: commit.retry for commit in commits}
    wanted = {*range(plan.shards), *(half for commit in commits for half in commit.split or ())}
    required = required_retries(read_retries(backend.store, job))
    return any(newest.get(shard, -1) < required.get(shard, 0) for shard in wanted)


def _remove_superseded(backend: Backend, job: str, commits: list[ShardCommit]) -> None:
    """Delete the outputs that a retry replaced, so that `out/*.parquet` holds each row once."""
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
