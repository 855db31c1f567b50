"""Works out the status of a job from the bucket alone, by its committed shards.

It knows nothing of the ledger, so it works when Redis does not answer or has lost its data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from contract.backend.objects import ObjectStore
from contract.jobs.lifecycle import read_created, read_end, read_plan, read_spec
from contract.jobs.results import read_commits
from contract.jobs.status import ShardCommit, Shards, State, Status


def unfinished(commits: Iterable[ShardCommit], planned: int) -> list[int]:
    """Return the shards that a retry runs again: shards with failed items, and shards never committed."""
    by_shard = {commit.shard: commit for commit in commits}
    expected = set(range(planned)) | {child for m in by_shard.values() for child in m.split or ()}
    return sorted(shard for shard in expected if shard not in by_shard or by_shard[shard].errors)


def status_from_bucket(store: ObjectStore, job: str) -> Status:
    """Return how far a job is by its commits; raises UnknownJob.

    Which shards are running or queued is not known here.
    """
    spec = read_spec(store, job)
    end = read_end(store, job)
    if end is not None:
        return end
    plan = read_plan(store, job)
    commits = read_commits(store, job)
    ok, errors = sum(m.ok for m in commits), sum(m.errors for m in commits)
    codes: Counter[str] = Counter()
    for commit in commits:
        codes.update(commit.error_codes)
    state: State = "running" if plan else "planning" if commits else "queued"
    extra = sum(2 for m in commits if m.split)
    return Status(
        id=job,
        kind=spec.kind,
        state=state,
        total=plan.items if plan else None,
        done=ok + errors,
        ok=ok,
        errors=errors,
        shards=Shards(total=plan.shards + extra if plan else 0, done=len(commits)),
        created_at=read_created(store, job),
        output=spec.output,
        model=spec.model,
        source=spec.source.label,
        skipped=plan.skipped if plan else 0,
        error_codes=dict(codes),
    )
