"""How a job begins, ends and is taken up again: the steps that keep bucket and ledger in agreement.

Each step writes the bucket first and the ledger second, so a process that dies in between leaves a state that `settle`
or `rebuild` repairs. It knows nothing of how a job is planned or run.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, cast

from contract.backend import dispatch
from contract.backend.ledger import Ledger, Step
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.datasets import extending
from contract.errors import InvalidInput, JobConflict, ObjectDamaged, ObjectNotFound, UnknownJob
from contract.jobs import ends, index, shares
from contract.jobs.commits import iter_commits, read_retries
from contract.jobs.destinations import check_output
from contract.jobs.ends import Standing, read_end, read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.loads import models_of, rules_for
from contract.jobs.numerics import needs_of
from contract.jobs.options import Share
from contract.jobs.sources import source_kind
from contract.jobs.specs import JOB_ID, AnySpec, Classify, ImagesSpec, Spec, parse_spec
from contract.jobs.status import Plan, Retry, State, Status
from contract.keys.bucket import ACTIVE
from contract.keys.jobs import JobKeys
from contract.keys.shards import MAX_OPEN_SHARDS, parse_shard
from contract.models.rules import Rule
from contract.records import USUAL_IMAGES, Priority
from contract.times import iso
from contract.web.webhooks.notes import note_end


@dataclass(frozen=True)
class Backend:
    """The three servers that hold jobs: object store, ledger and queues."""

    store: ObjectStore
    ledger: Ledger
    queues: Queues

    def follow_up(self, id: str, step: Step) -> None:
        """Send the messages that a ledger step asks for."""
        if step.tickets:
            self.ledger.send_tickets(kind_of(step.kind).queue, step.tickets)
        if step.state == "finalizing":
            self.queues.finalize(id)


def submit(backend: Backend, spec: Spec, owner: str = "") -> bool:
    """Begin a job of `owner`; return False if the same job was begun before, by whomever.

    Raises JobConflict if the id belongs to a job with another spec, and what `extending.claim` raises.
    """
    keys = JobKeys(spec.id)
    index.check_not_deleted(backend.store, spec.id)
    index.record_uses(backend.store, spec)
    extending.claim(backend.store, spec, owner)
    fresh = backend.store.put_if_absent(keys.spec, _envelope(spec, owner))
    there = _read_envelope(backend.store, spec.id)
    if there.spec != spec:
        raise JobConflict(f"The job {spec.id!r} exists with another spec; choose another --job, or leave it out.")
    now = read_standing(backend.store, spec.id)
    if now.end is not None:
        return False
    backend.store.put(keys.active, b"")
    backend.ledger.create(
        spec,
        there.created,
        run=now.run,
        **_needs(backend, spec),
        owner=there.owner,
        share=None if fresh else shares.read(backend.store, spec),
    )
    if source_kind(spec.source.kind).has_planner:
        backend.queues.plan(spec.id)
    if read_end(backend.store, spec.id) is not None:
        settle(backend, spec.id)  # it ended while this call was under way
    return fresh


class _Needs(TypedDict):
    needs: str
    rules: str
    ruled: str


def _needs(backend: Backend, spec: AnySpec) -> _Needs:
    """Return what `Ledger.create` must know for the dispatch: what the job needs, and the rules that admit it."""
    known = [Rule.model_validate_json(rule) for rule in dispatch.rules(backend.ledger).values()]
    admitted, asked = rules_for(models_of(backend.store, spec) if known else (), known)
    return {"needs": needs_of(backend.store, spec).signature, "rules": admitted, "ruled": asked}


def readmit(backend: Backend, id: str, known: Iterable[Rule]) -> None:
    """Hold the models of a job against the rules of the workers that are alive now."""
    admitted, asked = rules_for(models_of(backend.store, read_spec(backend.store, id)), known)
    backend.follow_up(id, backend.ledger.admit(id, admitted, asked))


@dataclass(frozen=True)
class _Envelope:
    spec: Spec
    created_at: str
    owner: str

    @property
    def created(self) -> float:
        """When the job was submitted, in seconds since the epoch."""
        return datetime.fromisoformat(self.created_at).timestamp()


def _envelope(spec: Spec, owner: str) -> bytes:
    # The owner is no part of the spec: the same command by somebody else is the same job.
    return json.dumps({"created_at": iso(time.time()), "owner": owner, "spec": spec.model_dump()}, indent=1).encode()


def read_spec(store: ObjectStore, id: str) -> Spec:
    """Return the spec of a job.

    Raises UnknownJob, InvalidInput for a kind that only a newer version knows, and ObjectDamaged for what is no spec.
    """
    return _read_envelope(store, id).spec


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
    return _read_envelope(store, id).created_at


def read_owner(store: ObjectStore, id: str) -> str:
    """Return who submitted the job; empty if an earlier version did not record that. Raises UnknownJob."""
    return _read_envelope(store, id).owner


def _read_envelope(store: ObjectStore, id: str) -> _Envelope:
    try:
        # Not every text can be an id: `../x` would name the object of somebody else.
        data = store.get(JobKeys(id).spec) if re.fullmatch(JOB_ID, id) else None
    except ObjectNotFound:
        data = None
    if data is None:
        raise UnknownJob(f"There is no job {id!r}; `imagemill jobs` lists them.") from None
    try:
        envelope = json.loads(data)
        kind_of(str(envelope["spec"]["kind"]))
        created, spec = str(envelope["created_at"]), parse_spec(envelope["spec"])
        datetime.fromisoformat(created)
        owner = str(envelope.get("owner", ""))
    except (LookupError, TypeError, ValueError) as error:
        raise ObjectDamaged(
            f"s3://{store.bucket}/{JobKeys(id).spec} is not a spec that this version can read "
            f"({type(error).__name__}); upgrade, or restore it."
        ) from error
    # Again, since anybody who may write the bucket can write a spec by hand.
    check_output(spec.output, store.bucket, id=spec.id)
    return _Envelope(spec, created, owner)


def read_plan(store: ObjectStore, id: str) -> Plan | None:
    """Return the plan, or None until it is complete."""
    try:
        return Plan.model_validate_json(store.get(JobKeys(id).plan))
    except ObjectNotFound:
        return None


def read_history(store: ObjectStore, id: str) -> list[dict[str, Any]]:
    """Return the records of a training's epochs so far, in the format of `worker.training.loop.EpochRecord`."""
    try:
        history: list[dict[str, Any]] = json.loads(store.get(JobKeys(id).history))
    except ObjectNotFound:
        return []
    return history


def status(backend: Backend, id: str) -> Status:
    """Return the status of a job, from the ledger if it is there, else from the bucket; raises UnknownJob."""
    while True:
        live = backend.ledger.status(id)
        if live is not None and not live.ended:
            return live
        now = read_standing(backend.store, id)
        if now.end is not None:
            return now.end
        run = backend.ledger.run(id)
        if live is None or run < now.run:
            return rebuild(backend, id)
        if backend.ledger.status(id) == live:
            return live  # the end found no room in a full bucket, so only the ledger has it


def close(
    backend: Backend, id: str, state: State, reason: str = "", *, run: int | None = None, **details: Any
) -> Status:
    """End a run of a job, the newest one unless told; return the end that stands, which may be another's.

    The bucket decides: the end is written only if absent, and all that follows from it is derived from what stands.
    """
    end = write_end(backend, id, state, reason, run=run, **details)
    settle(backend, id)
    return end


def write_end(
    backend: Backend, id: str, state: State, reason: str = "", *, run: int | None = None, **details: Any
) -> Status:
    """Do the first half of `close`: decide the end of a run. `settle` does the second."""
    there = _read_envelope(backend.store, id)
    spec = there.spec
    # The rows of shards that still run are lost; a training goes on from its checkpoint.
    rows = kind_of(spec).makes in ("labels", "images")
    now = backend.ledger.status(id, committed=rows) or Status(
        id=id, kind=spec.kind, state=state, created_at=there.created_at, owner=there.owner
    )
    details = {"output": spec.output, "model": spec.model, "source": spec.source.label, **details}
    run = read_standing(backend.store, id).run if run is None else run
    return ends.write_end(backend.store, id, run, _final(now, state, reason, **details))


def _final(now: Status, state: State, reason: str = "", **details: Any) -> Status:
    """Return the end of a run that stood where `now` says."""
    shards = now.shards.model_copy(update={"running": 0, "queued": 0})
    over = {"finished_at": iso(time.time()), "eta_seconds": None, "waiting_for": None, "shards": shards}
    return now.model_copy(update={"state": state, "reason": reason or None, **over, **details})


def settle(backend: Backend, id: str) -> Standing:
    """Make everything that depends on the end agree with what stands in the bucket, the ledger last.

    It completes a `close` that was interrupted, and does no harm at any other time. While the spec cannot be read, the
    job stays among the active ones, so that the reconciler does the rest once somebody has restored it.
    """
    try:
        now = ends.publish(backend.store, read_spec(backend.store, id))
    except ObjectDamaged:
        now = read_standing(backend.store, id)
    if now.end is not None:
        backend.ledger.end(id, now.end.state, now.end.reason or "", run=now.run)
    return now


def set_share(
    backend: Backend,
    id: str,
    *,
    priority: Priority | None = None,
    weight: float | None = None,
    max_slots: int | None = None,
) -> Status:
    """Change a job's share of the slots, None leaving a part as it is; return its status.

    Raises JobConflict if the job has ended, and pydantic.ValidationError for what no share can be.
    """
    spec, now = read_spec(backend.store, id), read_standing(backend.store, id)
    if now.end is not None:
        raise JobConflict(f"The job {id} has {_ended(now.end.state)}; only one that has not ended has a share.")
    changes = {"priority": priority, "weight": weight, "max_slots": max_slots}
    given = {name: value for name, value in changes.items() if value is not None}
    share = Share.model_validate({**shares.read(backend.store, spec).model_dump(), **given})
    shares.write(backend.store, id, share)
    backend.follow_up(id, backend.ledger.share(id, share))
    _tell_share(backend, spec, share)
    return status(backend, id)


def _tell_share(backend: Backend, spec: Spec, told: Share) -> None:
    """Tell the ledger the share in the bucket, in case somebody has changed it since the ledger was told `told`."""
    while (share := shares.read(backend.store, spec)) != told:
        backend.follow_up(spec.id, backend.ledger.share(spec.id, share))
        told = share


def _ended(state: str) -> str:
    return "been canceled" if state == "canceled" else state


def cancel(backend: Backend, id: str) -> Status:
    """Cancel a job, and return its end; raises JobConflict if it has ended otherwise, perhaps just now."""
    now = read_standing(backend.store, id)
    end = now.end or _cancel(backend, id, now.run)
    if end.state != "canceled":
        raise JobConflict(f"The job {id} has {end.state} already; there is nothing to cancel.")
    return end


def _cancel(backend: Backend, id: str, run: int) -> Status:
    """Cancel a run, be it by what the ledger knows alone: a job whose spec nobody can read must end, too."""
    try:
        return close(backend, id, "canceled", run=run)
    except UnknownJob:
        raise
    except (InvalidInput, ObjectDamaged):
        if (known := backend.ledger.status(id, committed=True)) is None:
            raise
    end = ends.write_end(backend.store, id, run, _final(known, "canceled"))
    backend.ledger.end(id, end.state, end.reason or "", run=run)
    return end


def reopen(backend: Backend, id: str, found: Standing | None = None, retry: Retry | None = None) -> Status:
    """Continue a job that ended or got stuck, from what the bucket holds.

    `found` is where it stood when that was decided. If it had ended, this opens its next run, unless somebody else did
    meanwhile: a `retry`, which asks for other shards, then raises JobConflict.
    """
    store, keys = backend.store, JobKeys(id)
    spec = read_spec(store, id)
    found = found or read_standing(store, id)
    if found.end is not None:
        # First, so that the reconciler finds the run if this process dies.
        store.put(keys.active, b"")
        note_end(store, id, found.run, spec.webhook)  # whoever ended it may not have come so far
        if not ends.open_run(store, id, found.run + 1, retry) and retry is not None:
            ends.publish(store, spec)
            raise JobConflict(f"Somebody else has just taken up {id}; follow it with `imagemill follow {id}`.")
        index.check_not_deleted(store, id)
    if kind_of(spec).page == "when asked for":
        # It shows outdated rows. Deleted after the run is open: a worker that writes the page looks at the end last.
        store.delete(keys.report)
    if ends.publish(store, spec).end is None:
        backend.ledger.forget(id)
    return rebuild(backend, id)


def rebuild(backend: Backend, id: str, *, anew: bool = False) -> Status:
    """Rebuild a job's ledger entry from the bucket alone, and let the shards that are not done be handed out.

    With `anew`, what the ledger has of it is deleted first. It is safe while workers run, because a commit counts once
    however often it is reported. Raises UnknownJob, before anything is changed.
    """
    there = _read_envelope(backend.store, id)
    spec = there.spec
    if anew:
        backend.ledger.forget(id)
    while True:
        now, share = read_standing(backend.store, id), shares.read(backend.store, spec)
        _replay(backend, there, now, share)
        if now.end is not None:
            backend.ledger.end(id, now.end.state, now.end.reason or "", run=now.run)
        # Whoever ended the run meanwhile may have found no entry to end.
        if read_standing(backend.store, id) == now:
            break
    _tell_share(backend, spec, share)
    if now.end is not None:
        return now.end
    found = backend.ledger.status(id)
    if found is not None and found.ended:  # just now; what the bucket says of it is what stays
        return status(backend, id)
    return found or Status(id=id, kind=spec.kind, state="queued", created_at=there.created_at, owner=there.owner)


def _replay(backend: Backend, there: _Envelope, now: Standing, share: Share) -> None:
    """Create a ledger entry, tell it what the bucket holds, and open it if the run is open."""
    spec = there.spec
    store, ledger, id = backend.store, backend.ledger, spec.id
    retries = read_retries(store, id)
    ledger.create(
        spec,
        there.created,
        rebuild=True,
        retry=retries.number,
        run=now.run,
        **_needs(backend, spec),
        owner=there.owner,
        share=share,
    )
    plan = read_plan(store, id)
    if plan is None and kind_of(spec).runs_while_planned:
        asked = cast("Classify", spec).shard_size
        about = USUAL_IMAGES if asked == "auto" else asked  # until the plan is complete
        halves = MAX_OPEN_SHARDS if source_kind(spec.source.kind).open_plan else math.inf
        for entry in store.list(JobKeys(id).plan_prefix):
            found = parse_shard(entry.key)
            if found and entry.size and found[0] < halves:  # an empty manifest ends the plan
                ledger.planned(id, found[0], about)
    elif plan is not None:
        limit = spec.error_limit(plan.items)
        ledger.complete(id, shards=plan.shards, items=plan.items, error_limit=limit, skipped=plan.skipped)
    for commit in iter_commits(store, id):
        if commit.retry >= retries.required.get(commit.shard, 0):
            ledger.commit(id, commit.shard, commit.ok, commit.errors, commit.split, seconds=commit.seconds)
    if now.end is None:
        backend.follow_up(id, ledger.open(id))
        if plan is None and source_kind(spec.source.kind).has_planner:
            backend.queues.plan(id)


def active_jobs(store: ObjectStore) -> list[str]:
    """Return the ids of the jobs that have not ended, according to the bucket."""
    return [entry.key.removeprefix(ACTIVE) for entry in store.list(ACTIVE)]
