"""Works out the status of a job from the bucket alone, by its committed shards.

It knows nothing of the ledger, so it works when Redis does not answer or has lost its data.
"""

from __future__ import annotations

from collections.abc import Iterable

from contract.backend.objects import ObjectStore
from contract.jobs.commits import count_commits
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import read_created, read_owner, read_plan, read_spec
from contract.jobs.status import ShardCommit, Shards, State, Status


def unfinished(commits: Iterable[ShardCommit], planned: int) -> list[int]:
    """Return the shards that a retry runs again: shards with failed items, and shards never committed."""
    expected, clean = set(range(planned)), set()
    for commit in commits:
        expected.update(commit.split or ())
        if not commit.errors:
            clean.add(commit.shard)
    return sorted(expected - clean)


def status_from_bucket(store: ObjectStore, job: str) -> Status:
    """Return how far a job is by its commits; raises UnknownJob.

    Which shards are running or queued is not known here.
    """
    spec = read_spec(store, job)
    end = read_end(store, job)
    if end is not None:
        return end
    plan = read_plan(store, job)
    tally = count_commits(store, job, plan.shards if plan else 0)
    state: State = "running" if plan else "planning" if tally.shards else "queued"
    return Status(
        id=job,
        kind=spec.kind,
        state=state,
        total=plan.items if plan else None,
        done=tally.ok + tally.errors,
        ok=tally.ok,
        errors=tally.errors,
        shards=Shards(total=plan.shards + 2 * len(tally.split) if plan else 0, done=tally.shards),
        created_at=read_created(store, job),
        output=spec.output,
        model=spec.model,
        source=spec.source.label,
        skipped=plan.skipped if plan else 0,
        owner=read_owner(store, job),
        error_codes=dict(tally.error_codes),
    )
