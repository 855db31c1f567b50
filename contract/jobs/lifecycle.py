"""How a job begins, ends and is taken up again: the steps that keep bucket and ledger in agreement.

Each step writes the bucket first and the ledger second, so a process that dies in between leaves a state that `rebuild`
repairs. It knows nothing of how a job is planned or run.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from contract.backend.broker import Queues
from contract.backend.ledger import Ledger, Step, iso
from contract.backend.objects import ObjectStore
from contract.errors import JobConflict, ObjectNotFound, UnknownJob
from contract.jobs.kinds import kind_of
from contract.jobs.sources import source_kind
from contract.jobs.specs import Classify, ImagesSpec, Spec, parse_spec
from contract.jobs.status import Plan, Retry, ShardCommit, State, Status
from contract.keys import ACTIVE, JobKeys, parse_shard


@dataclass(frozen=True)
class Backend:
    """The three servers that hold jobs: object store, ledger and queues."""

    store: ObjectStore
    ledger: Ledger
    queues: Queues

    def follow_up(self, id: str, step: Step) -> None:
        """Send the messages that a ledger step asks for."""
        self.queues.run(step.kind, id, step.queue)
        if step.state == "finalizing":
            self.queues.finalize(id)


def submit(backend: Backend, spec: Spec) -> bool:
    """Begin a job; return False if the same job was begun before.

    Raises JobConflict if the id belongs to a job with another spec.
    """
    keys = JobKeys(spec.id)
    fresh = backend.store.put_if_absent(keys.spec, _envelope(spec))
    there, created_at = _read_envelope(backend.store, spec.id)
    if there != spec:
        raise JobConflict(f"The job {spec.id!r} exists with another spec; choose another --job, or leave it out.")
    if backend.store.exists(keys.end):
        return False
    backend.store.put(keys.active, b"")
    backend.ledger.create(spec, _seconds(created_at))
    if not source_kind(spec.source.kind).packed_by_producer:
        backend.queues.plan(spec.id)
    return fresh


def _envelope(spec: Spec) -> bytes:
    return json.dumps({"created_at": iso(time.time()), "spec": spec.model_dump()}, indent=1).encode()


def read_spec(store: ObjectStore, id: str) -> Spec:
    """Return the spec of a job; raises UnknownJob, and InvalidInput for a kind that only a newer version knows."""
    return _read_envelope(store, id)[0]


def read_classify(store: ObjectStore, id: str) -> Classify:
    """Return the spec of a job that labels images; raises UnknownJob, and JobConflict for another kind of job."""
    return cast("Classify", _read_kind(store, id, "labels", "labels no images"))


def read_images(store: ObjectStore, id: str) -> ImagesSpec:
    """Return the spec of a job that generates images; raises UnknownJob, and JobConflict for another kind of job."""
    return cast("ImagesSpec", _read_kind(store, id, "images", "generates no images"))


def _read_kind(store: ObjectStore, id: str, makes: str, lacks: str) -> Spec:
    """Read the spec of a job that makes `makes`; raise JobConflict, which says what the job has, if it does not."""
    spec = read_spec(store, id)
    kind = kind_of(spec)
    if kind.makes != makes:
        raise JobConflict(f"{id} {lacks}, its kind is {kind.name}; {kind.has.format(id=id)}.")
    return spec


def read_created(store: ObjectStore, id: str) -> str:
    """Return when the job was submitted, in UTC as ISO 8601; raises UnknownJob."""
    return _read_envelope(store, id)[1]


def _read_envelope(store: ObjectStore, id: str) -> tuple[Spec, str]:
    try:
        envelope = json.loads(store.get(JobKeys(id).spec))
    except ObjectNotFound:
        raise UnknownJob(f"There is no job {id!r}; `imagemill jobs` lists them.") from None
    kind_of(str(envelope["spec"]["kind"]))
    return parse_spec(envelope["spec"]), str(envelope["created_at"])


def read_plan(store: ObjectStore, id: str) -> Plan | None:
    """Return the plan, or None until it is complete."""
    try:
        return Plan.model_validate_json(store.get(JobKeys(id).plan))
    except ObjectNotFound:
        return None


def read_end(store: ObjectStore, id: str) -> Status | None:
    """Return the final status of a job, or None until it has ended."""
    try:
        return Status.model_validate_json(store.get(JobKeys(id).end))
    except ObjectNotFound:
        return None


def read_history(store: ObjectStore, id: str) -> list[dict[str, Any]]:
    """Return the records of a training's epochs so far, in the format of `worker.training.loop.EpochRecord`."""
    try:
        history: list[dict[str, Any]] = json.loads(store.get(JobKeys(id).history))
    except ObjectNotFound:
        return []
    return history


def commit_keys(store: ObjectStore, id: str) -> dict[int, int]:
    """Return the newest retry number of each committed shard."""
    newest: dict[int, int] = {}
    for entry in store.list(JobKeys(id).commit_prefix):
        found = parse_shard(entry.key)
        if found:
            shard, retry = found
            newest[shard] = max(retry, newest.get(shard, 0))
    return newest


def read_commit(store: ObjectStore, id: str, shard: int, retry: int = 0) -> ShardCommit:
    """Return the commit of a shard; raises ObjectNotFound."""
    return ShardCommit.model_validate_json(store.get(JobKeys(id).commit(shard, retry)))


def read_retries(store: ObjectStore, id: str) -> list[Retry]:
    """Return the job's retries, oldest first."""
    return [Retry.model_validate_json(store.get(e.key)) for e in store.list(JobKeys(id).retry_prefix)]


def required_retries(retries: list[Retry]) -> dict[int, int]:
    """Return the number of the last retry that names each shard, for the shards that were retried."""
    return {shard: retry.number for retry in retries for shard in retry.shards}


def status(backend: Backend, id: str) -> Status:
    """Return the status of a job, from the ledger if it is there, else from the bucket; raises UnknownJob."""
    live = backend.ledger.status(id)
    if live is not None and not live.ended:
        return live
    return read_end(backend.store, id) or live or rebuild(backend, id)


def close(backend: Backend, id: str, state: State, reason: str = "", **details: Any) -> Status:
    """End a job: write its final status, then remove it from the active jobs, then update the ledger."""
    keys = JobKeys(id)
    spec, created_at = _read_envelope(backend.store, id)
    now = backend.ledger.status(id) or Status(id=id, kind=spec.kind, state=state, created_at=created_at)
    final = now.model_copy(
        update={
            "state": state,
            "reason": reason or None,
            "finished_at": iso(time.time()),
            "eta_seconds": None,
            "output": spec.output,
            "model": spec.model,
            "source": spec.source.label,
            **details,
        }
    )
    backend.store.put(keys.end, final.to_json())
    if state == "succeeded":
        backend.store.put(keys.success, b"")
    backend.store.delete(keys.active)
    backend.ledger.end(id, state, reason)
    return final


def settle(backend: Backend, id: str) -> None:
    """Complete a `close` that was interrupted; do nothing for a job that has not ended."""
    end = read_end(backend.store, id)
    if end is not None:
        backend.store.delete(JobKeys(id).active)
        backend.ledger.end(id, end.state, end.reason or "")


def reopen(backend: Backend, id: str) -> Status:
    """Continue a job that ended or got stuck, from what the bucket holds."""
    keys = JobKeys(id)
    spec = read_spec(backend.store, id)
    backend.store.put(keys.active, b"")
    backend.store.delete(keys.success)
    backend.store.delete(keys.end)
    if kind_of(spec).page == "when asked for":
        # It shows outdated rows. Deleted after the end: a worker that writes the page checks for the end last.
        backend.store.delete(keys.report)
    backend.ledger.forget(id)
    return rebuild(backend, id)


def rebuild(backend: Backend, id: str) -> Status:
    """Rebuild a job's ledger entry from the bucket alone, and queue the shards that are not done.

    It is safe while workers run, because a commit counts once however often it is reported.
    """
    store, ledger, keys = backend.store, backend.ledger, JobKeys(id)
    spec, created_at = _read_envelope(store, id)
    end = read_end(store, id)
    retries = read_retries(store, id)
    ledger.create(spec, _seconds(created_at), rebuild=True, retry=len(retries))
    plan = read_plan(store, id)
    if plan is None and kind_of(spec).runs_while_planned:
        shard_size = cast("Classify", spec).shard_size
        for entry in store.list(keys.plan_prefix):
            found = parse_shard(entry.key)
            if found:
                ledger.planned(id, found[0], shard_size)
    elif plan is not None:
        limit = spec.error_limit(plan.items)
        ledger.complete(id, shards=plan.shards, items=plan.items, error_limit=limit, skipped=plan.skipped)
    required = required_retries(retries)
    # Halves before the shard they came from, so that a finished half is not queued again.
    for shard, retry in sorted(commit_keys(store, id).items(), reverse=True):
        if retry >= required.get(shard, 0):
            commit = read_commit(store, id, shard, retry)
            step = ledger.commit(id, shard, commit.ok, commit.errors, commit.split)
            backend.queues.run(step.kind, id, step.queue)
    if end is not None:
        ledger.end(id, end.state, end.reason or "")
        return end
    backend.follow_up(id, ledger.open(id))
    if plan is None and not source_kind(spec.source.kind).packed_by_producer:
        backend.queues.plan(id)
    found_now = ledger.status(id)
    assert found_now is not None, "the entry was just written"
    return found_now


def _seconds(iso_time: str) -> float:
    return datetime.fromisoformat(iso_time).timestamp()


def active_jobs(store: ObjectStore) -> list[str]:
    """Return the ids of the jobs that have not ended, according to the bucket."""
    return [entry.key.removeprefix(ACTIVE) for entry in store.list(ACTIVE)]
