"""The phases of a synthesis (candidates, selected, end), killed and wiped within and between them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, read_plan, rebuild, reopen, submit
from contract.jobs.outputs import write
from contract.jobs.specs import Synthesize
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import shard_stem
from tests.synthetic import LABELS, synthesize_spec
from worker.control.plan import plan
from worker.generation import candidate_plan
from worker.generation.archive import Archive, index
from worker.generation.select_images import SynthesisFinalizer
from worker.generation.shard import FEATURES

JOB = "digits"
ASKED = {"classes": (0, 1), "per_class": 100, "shard_size": 50, "dedup": None}
Outcome = set[tuple[str, str]]


class StoppedError(BaseException):
    """A worker dies here, so nothing that handles errors may see it."""


@dataclass(frozen=True)
class Named:
    labels: tuple[str, ...] = LABELS


class NamedModels:
    """The finalizer asks a model for the names of its classes alone."""

    def model(self, ref: str) -> Named:
        return Named()


def finalizer(backend: Backend) -> SynthesisFinalizer:
    return SynthesisFinalizer(backend, cast("Any", NamedModels()), lambda spec: lambda spec, stats: {}, lock_seconds=30)


def begin(backend: Backend, **more: object) -> Synthesize:
    spec = synthesize_spec(backend.store, JOB, **{**ASKED, **more})
    submit(backend, spec)
    plan(backend, JOB)
    return spec


def commit_candidates(backend: Backend, spec: Synthesize, shard: int) -> None:
    """What a worker does with a shard: every second candidate passes the gate."""
    archive, features = Archive(spec.image_format), []
    for label, number in candidate_plan.read_block(backend.store, spec.id, shard).images():
        key = image_index.sample_key(label, number)
        row = dict.fromkeys(image_index.schema(spec.kind).names) | {
            "key": key,
            "label": LABELS[label],
            "label_index": label,
            "index": number,
            "accepted": number % 2 == 0,
            "reject_reason": None if number % 2 == 0 else "score",
        }
        if row["accepted"]:
            archive.add(row, f"image {key}".encode(), {})
            features.append(np.eye(4, dtype=np.float32)[number // 2 % 4])
        else:
            archive.reject(row)
            features.append(None)
    keys = JobKeys(spec.id)
    data = index(archive.rows, spec.kind, {FEATURES: pa.array(features, pa.list_(pa.float32()))})
    prefix = f"s3://{backend.store.bucket}/{keys.candidate_prefix}"
    outputs = write(backend.store, prefix, shard_stem(shard), {".tar": archive.close(), ".parquet": data})
    commit = ShardCommit(
        shard=shard, items=len(archive.rows), ok=len(archive.rows), errors=0, **image_index.named(outputs)
    )
    backend.store.put(keys.commit(shard), commit.to_json())
    backend.ledger.commit(spec.id, shard, commit.ok, 0)


def make_all(backend: Backend, spec: Synthesize) -> None:
    """Commit every shard of the plan that is not committed."""
    for shard in range(len(candidate_plan.read(backend.store, spec.id))):
        if not backend.store.exists(JobKeys(spec.id).commit(shard)):
            commit_candidates(backend, spec, shard)


def complete(backend: Backend, spec: Synthesize) -> Outcome:
    """Work until the job has ended, as workers and reconciler do."""
    for _ in range(5):
        if not backend.ledger.exists(spec.id):
            rebuild(backend, spec.id)
        make_all(backend, spec)
        finalizer(backend).run(spec.id)
        if (end := read_end(backend.store, spec.id)) is not None:
            assert (end.state, end.reason) == ("succeeded", None)
            assert end.done == end.total
            return outcome(backend.store, spec)
    raise AssertionError(f"{spec.id} has not ended: {backend.ledger.status(spec.id)}")


def outcome(store: ObjectStore, spec: Synthesize) -> Outcome:
    """Key and sha256 of each accepted image; every candidate has one row."""
    rows = [row for _, table in image_index.shards(store, spec) for row in table.to_pylist()]
    assert len({row["key"] for row in rows}) == len(rows), "a candidate has two rows"
    return {(row["key"], row["sha256"]) for row in rows if row["accepted"]}


EXPECTED = {
    (key, hashlib.sha256(f"image {key}".encode()).hexdigest())
    for key in (image_index.sample_key(label, number) for label in (0, 1) for number in range(0, 200, 2))
}


def wipe(backend: Backend) -> None:
    backend.ledger.forget(JOB)


def die_at_put(backend: Backend, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Run the finalizer in a worker that dies just before it writes `key`."""

    def stopping(put: Any) -> Any:
        def stop(self: ObjectStore, name: str, *args: Any, **kwargs: Any) -> Any:
            if name == key:
                raise StoppedError
            return put(self, name, *args, **kwargs)

        return stop

    with monkeypatch.context() as patch:
        for name in ("put", "put_if_absent"):
            patch.setattr(ObjectStore, name, stopping(getattr(ObjectStore, name)))
        with pytest.raises(StoppedError):
            finalizer(backend).run(JOB)


def test_a_plan_grows_by_a_step_of_the_ledger_until_enough_is_accepted(backend: Backend) -> None:
    # Given a synthesis whose first candidates are made, half of which pass,
    spec = begin(backend)
    make_all(backend, spec)
    before = backend.ledger.status(JOB)
    assert before is not None
    assert before.state == "finalizing"

    # if a worker finalizes it, I expect that it runs again with more shards, and forgets nothing of those done.
    finalizer(backend).run(JOB)
    now, planned = backend.ledger.status(JOB), read_plan(backend.store, JOB)
    assert now is not None
    assert planned is not None
    assert (now.state, now.done, now.shards.done) == ("running", before.done, before.shards.done)
    assert now.shards.total == planned.shards == len(candidate_plan.read(backend.store, JOB)) > before.shards.total
    assert read_end(backend.store, JOB) is None

    # Once these are made too, the outcome is selected, in commits of its own, and the candidates go.
    assert complete(backend, spec) == EXPECTED
    keys = JobKeys(JOB)
    assert backend.store.exists(keys.selected(0))
    assert not list(backend.store.list(keys.candidate_prefix))


@pytest.mark.parametrize("also_wiped", [False, True])
def test_killed_between_plan_and_ledger_the_plan_still_grows(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, also_wiped: bool
) -> None:
    # Given a worker that dies after it has written more candidates to the plan and before anybody knows,
    spec = begin(backend)
    make_all(backend, spec)
    die_at_put(backend, monkeypatch, JobKeys(JOB).plan)
    assert len(candidate_plan.read(backend.store, JOB)) > read_plan(backend.store, JOB).shards  # type: ignore[union-attr]
    if also_wiped:
        wipe(backend)
        rebuild(backend, JOB)

    # if another finalizes the job, I expect the longer plan, not an end for lack of commits.
    finalizer(backend).run(JOB)
    status = backend.ledger.status(JOB)
    assert status is not None
    assert (status.state, status.shards.total) == ("running", len(candidate_plan.read(backend.store, JOB)))
    assert complete(backend, spec) == EXPECTED


def test_wiped_among_the_candidates_the_same_are_selected(backend: Backend) -> None:
    spec = begin(backend)
    commit_candidates(backend, spec, 0)
    wipe(backend)

    assert complete(backend, spec) == EXPECTED


@pytest.mark.parametrize("at", ["first selected", "last selected", "end"])
def test_killed_and_wiped_in_the_selection_the_same_are_selected(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    # Given a worker that dies in the selection or between it and the end, and a Redis that forgets,
    spec = begin(backend)
    make_all(backend, spec)
    finalizer(backend).run(JOB)
    make_all(backend, spec)
    keys, last = JobKeys(JOB), len(candidate_plan.read(backend.store, JOB)) - 1
    die_at_put(
        backend,
        monkeypatch,
        {"first selected": keys.selected(1), "last selected": keys.selected(last)}.get(at, keys.end),
    )
    wipe(backend)
    status = rebuild(backend, JOB)
    assert (status.state, status.done) == ("finalizing", status.total), "candidates count, not what is selected of them"

    # I expect the same images.
    assert complete(backend, spec) == EXPECTED


def test_a_class_with_a_number_of_its_own_has_as_many(backend: Backend) -> None:
    spec = begin(backend, counts=(100, 7))
    kept = {key for key, _ in complete(backend, spec)}
    assert kept == {image_index.sample_key(0, n) for n in range(0, 200, 2)} | {
        image_index.sample_key(1, n) for n in range(0, 14, 2)
    }


# Buckets of versions in which the second commit of a shard (`-r1`) was that of what was selected


def to_old_layout(store: ObjectStore, shards: list[int]) -> None:
    keys = JobKeys(JOB)
    for shard in shards:
        commit = ShardCommit.model_validate_json(store.get(keys.selected(shard)))
        store.put(keys.commit(shard, 1), commit.model_copy(update={"retry": 1}).to_json())
    for entry in list(store.list(keys.selected_prefix)):
        store.delete(entry.key)


def test_an_old_synthesis_that_ended_is_read(backend: Backend) -> None:
    spec = begin(backend)
    complete(backend, spec)
    to_old_layout(backend.store, list(range(len(candidate_plan.read(backend.store, JOB)))))

    assert outcome(backend.store, spec) == EXPECTED


def test_an_old_synthesis_that_was_selecting_goes_on(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a bucket in which an earlier version selected from the first shards of two,
    spec = begin(backend)
    make_all(backend, spec)
    finalizer(backend).run(JOB)
    make_all(backend, spec)
    die_at_put(backend, monkeypatch, JobKeys(JOB).selected(2))
    to_old_layout(backend.store, [0, 1])

    # if the job is resumed, I expect what either version alone selects.
    reopen(backend, JOB)
    assert complete(backend, spec) == EXPECTED
