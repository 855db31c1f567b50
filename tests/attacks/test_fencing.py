"""Attempts that lost their lease and go on: what is committed keeps its bytes, and what they leave is removed."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.data.items import parse_s3
from contract.jobs import outputs
from contract.jobs.commits import read_commit
from contract.jobs.ends import read_end
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, rebuild, reopen, submit
from contract.jobs.numerics import Capabilities
from contract.jobs.specs import Evaluate, Generate, Source
from contract.jobs.status import Plan, ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.names import named_by_content
from contract.models.registry import Model, Registry, make_file
from tests.parity import MODEL
from tests.synthetic import LABELS, generate_spec
from tests.taking import granted
from tests.worker.conftest import Jobs, Runners, job, runner_of
from worker.control.finalize import finalize
from worker.control.plan import plan
from worker.evaluation.job import EvaluateWork
from worker.evaluation.judges import Judgement
from worker.execution.capabilities import Fit
from worker.execution.exclusive import Turns
from worker.execution.health import Health
from worker.execution.job_runner import JobRunner
from worker.execution.leases import Lease, LeaseRenewer
from worker.execution.runner import Host
from worker.generation.archive import Archive, new_row
from worker.generation.finalize_images import ImagesFinalizer
from worker.generation.shard import Filled, GeneratedWork

JOB = "sheet"
KEYS = JobKeys(JOB)
NONE = cast("Any", None)
__all__ = ["job", "runner_of"]  # fixtures


class NamedModels:
    """A generator whose classes have names; a twin on another machine makes other bytes of the same images."""

    def model(self, ref: str) -> Any:
        return SimpleNamespace(labels=LABELS, ref=ref)

    def generator(self, ref: str, precision: str) -> Any:
        return SimpleNamespace(name="torch", precision="fp32")

    def on_accelerator(self) -> bool:
        return False


@dataclass(frozen=True)
class Painter(GeneratedWork):
    """Makes the images of a block of `paint`."""

    paint: bytes = b"original"
    meanwhile: Callable[[], None] = lambda: None

    def fill(self, spec: Generate, lease: Lease, archive: Archive) -> Filled:
        self.meanwhile()
        for label, number in self.block(spec, lease).images():
            row = new_row(spec, self.models.model(spec.model), label, number, 8)
            archive.add(row, self.paint + row["key"].encode(), {})
        return Filled()


def painter(backend: Backend, paint: bytes = b"original", meanwhile: Callable[[], None] = lambda: None) -> Painter:
    return Painter(backend, cast("Any", NamedModels()), NONE, NONE, paint=paint, meanwhile=meanwhile)


def finalizer(backend: Backend) -> ImagesFinalizer:
    return ImagesFinalizer(backend, cast("Any", NamedModels()), lambda spec: lambda spec, stats: {}, lock_seconds=30)


@pytest.fixture
def spec(backend: Backend) -> Generate:
    """A planned generation of two shards."""
    made = generate_spec(backend.store, JOB, count=20, shard_size=12)
    submit(backend, made)
    plan(backend, JOB)
    return made


@pytest.fixture
def run(backend: Backend, request: pytest.FixtureRequest) -> Any:
    """Runs a shard as a worker does."""

    def runs(
        shard: int, paint: bytes = b"original", *, copy: bool = False, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        renewer = LeaseRenewer(backend.ledger, 30.0)
        request.addfinalizer(renewer.close)
        fit = Fit(backend, Capabilities(device="cpu", precisions=("fp32",)))
        host = Host(
            name="worker",
            process="worker",
            backend=backend,
            renewer=renewer,
            turns=Turns(),
            health=Health(lambda: None, lambda _: None),
            max_attempts=3,
            fault_seconds=0.0,
        )
        runner = JobRunner(host, fit)
        grant = granted(backend.ledger, JOB, shard, f"worker:{uuid.uuid4().hex}")
        if grant is not None:
            runner.run(kind_of("generate"), painter(backend, paint, meanwhile), replace(grant, copy=copy))

    return runs


def check(store: ObjectStore, commit: ShardCommit, paint: bytes) -> None:
    """Every object of a commit has the size and the sha256 that it says, and the images are those of `paint`."""
    assert len(commit.outputs) == 2
    for output in commit.outputs:
        bucket, key = parse_s3(output.address)
        data = store.get(key, bucket=bucket)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (output.size, output.sha256)
    assert paint in image_index.read_tar(store, commit)


def below(store: ObjectStore, prefix: str) -> list[str]:
    return [entry.key.removeprefix(prefix) for entry in store.list(prefix)]


def test_a_stale_twin_writes_beside_and_never_over(backend: Backend, spec: Generate, run: Any) -> None:
    # Given a shard that is committed, and a twin of its worker that was stopped just before it wrote: it does not know
    # that its lease is gone,
    store, out = backend.store, f"{KEYS.root}out/"
    run(0)
    run(1)
    before = read_commit(store, JOB, 0)

    # if it writes other bytes of the same images, I expect what is committed to stay as it is.
    late = painter(backend, b"stale").make(spec, Lease(JOB, 0, "an old token"), 0)
    assert late.output != before.output
    check(store, before, b"original")
    check(store, late, b"stale")
    assert not store.put_if_absent(KEYS.commit(0), late.to_json())

    # Readers follow the commit, and what the twin left goes when the job ends.
    rows = [row for _, table in image_index.shards(store, spec) for row in table.to_pylist()]
    assert len({row["key"] for row in rows}) == len(rows) == 20
    finalizer(backend).run(JOB)
    end = read_end(store, JOB)
    assert end is not None and (end.state, end.total) == ("succeeded", 20)
    names = below(store, out)
    assert len([name for name in names if named_by_content(name)]) == 4, "a tar and an index of two shards"
    assert {"README.md", "summary.json", "_SUCCESS"} <= set(names)
    check(store, read_commit(store, JOB, 0), b"original")


@pytest.mark.parametrize("copy", [False, True], ids=["the holder", "the second copy"])
@pytest.mark.parametrize("paint", [b"late", b"original"], ids=["other bytes", "the same bytes"])
def test_who_commits_second_removes_what_nobody_names(
    backend: Backend, spec: Generate, run: Any, copy: bool, paint: bytes
) -> None:
    # Given a shard that two workers make at once, since one of them is slow, and of which the other commits first,
    store, out = backend.store, f"{KEYS.root}out/"

    def first() -> None:
        made = painter(backend).make(spec, Lease(JOB, 0, "the other's"), 0)
        store.put(KEYS.commit(0), made.model_copy(update={"worker": "the other"}).to_json())

    # if this one commits second, I expect nothing of its own to be left, and all of the other's to stand.
    run(0, paint, copy=copy, meanwhile=first)
    stands = read_commit(store, JOB, 0)
    assert stands.worker == "the other"
    check(store, stands, b"original")
    assert {f"s3://{store.bucket}/{out}{name}" for name in below(store, out)} == {
        output.address for output in stands.outputs
    }
    # It counts once, as what stands.
    status = backend.ledger.status(JOB)
    assert status is not None and (status.shards.done, status.done) == (1, stands.items)


def test_a_twin_with_the_same_bytes_changes_nothing(backend: Backend, spec: Generate, run: Any) -> None:
    # Given a worker that died after it wrote and before its commit,
    store, out = backend.store, f"{KEYS.root}out/"
    painter(backend).make(spec, Lease(JOB, 0, "token"), 0)
    names = below(store, out)

    # if another makes the shard, I expect the same objects under the same keys.
    run(0)
    assert below(store, out) == names
    check(store, read_commit(store, JOB, 0), b"original")


def test_nothing_is_removed_where_others_may_write(backend: Backend) -> None:
    # Given a spec that was written by hand, whose results go where another job's are,
    store = backend.store
    spec = generate_spec(store, JOB, output=f"s3://{store.bucket}/shared/")
    theirs = outputs.write(store, spec.output, "shard-000000", {".tar": b"theirs", ".parquet": b"theirs"})

    assert list(outputs.leftovers(store, spec, [])) == []
    own = generate_spec(store, JOB, output=f"s3://{store.bucket}/shared/{JOB}/")
    left = outputs.write(store, own.output, "shard-000000", {".tar": b"mine"})
    assert [f"s3://{bucket}/{key}" for bucket, key in outputs.leftovers(store, own, [])] == [left[0].address]
    assert theirs


# What is gone at the end


def test_an_output_that_is_gone_is_made_again_once(backend: Backend, spec: Generate, run: Any) -> None:
    # Given a tar that somebody deleted after it was committed,
    run(0)
    run(1)
    store, finish = backend.store, finalizer(backend).run
    (bucket, key) = parse_s3(image_index.tar_of(str(read_commit(store, JOB, 1).output)))
    committed = store.get(KEYS.commit(1))
    store.delete(key, bucket=bucket)

    # if the job is finalized, I expect no end, but that shard to run again,
    finish(JOB)
    status = backend.ledger.status(JOB)
    assert read_end(store, JOB) is None and status is not None
    assert (status.state, status.shards.done) == ("running", 1)
    run(1)

    # and if it is gone again, even though the commit has the same bytes, an end that names it.
    store.put(KEYS.commit(1), committed)
    store.delete(key, bucket=bucket)
    finish(JOB)
    end = read_end(store, JOB)
    assert end is not None and end.state == "failed"
    assert f"{key} is gone, and was missing before" in str(end.reason)

    # Once its cause is mended and the mark removed, the job can be resumed.
    store.delete(KEYS.lost(1))
    reopen(backend, JOB)
    finish(JOB)
    run(1)
    finish(JOB)
    end = read_end(store, JOB)
    assert end is not None and end.state == "succeeded"


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_rows_that_are_gone_are_labelled_again(backend: Backend, job: Jobs, runner_of: Runners, damage: str) -> None:
    job(b"\x01", b"\x02", b"\x03", shard_size=2)
    store, keys = backend.store, JobKeys("job")
    for shard in range(2):
        runner_of().run("job", shard)
    key = f"{keys.root}out/shard-000000.parquet"
    whole = store.get(key)
    store.delete(key)
    if damage == "cut short":
        store.put(key, whole[:-1])
    finalize(backend, "job")
    assert read_end(store, "job") is None
    assert backend.ledger.state("job") == "running"

    # A finalizer that dies between its two steps takes no second chance away.
    lost = outputs.Lost.model_validate_json(store.get(keys.lost(0)))
    assert lost.deleted
    store.put(keys.lost(0), lost.model_copy(update={"deleted": False}).to_json())
    store.put(keys.commit(0), lost.commit.to_json())
    store.delete(key)
    rebuild(backend, "job")
    finalize(backend, "job")
    assert read_end(store, "job") is None

    runner_of().run("job", 0)
    finalize(backend, "job")
    end = read_end(store, "job")
    assert end is not None and (end.state, end.ok) == ("succeeded", 3)
    assert store.get(key) == whole


def test_outputs_of_older_commits_are_looked_for_too(backend: Backend) -> None:
    store, spec = backend.store, generate_spec(backend.store, JOB)
    store.put(f"{KEYS.root}out/shard-000000.parquet", b"index")
    old = ShardCommit(shard=0, items=1, ok=1, errors=0, output=f"{spec.output}shard-000000.parquet", sha256="0" * 64)
    assert [told for _, told in outputs.missing(store, spec, [old])] == [f"{spec.output}shard-000000.tar is gone"]


# Evaluations and trainings


class Generator(NamedModels):
    def model(self, ref: str) -> Any:
        return MODEL.model_copy(update={"task": "generate"})


def test_a_stale_evaluation_is_not_published(backend: Backend) -> None:
    # Given an evaluation that is committed, and a twin that found other figures,
    store = backend.store
    spec = Evaluate(
        id="judged",
        model=MODEL.ref,
        weights_sha256=MODEL.weights.sha256,
        source=Source(kind="prefix", uri=f"s3://{store.bucket}/in/", label="in"),
        output=f"s3://{store.bucket}/jobs/judged/out/",
    )
    submit(backend, spec)
    keys, found = JobKeys("judged"), []

    def found_by(judgement: Judgement, case: object) -> Judgement:
        return judgement

    for figures in (b"1", b"2"):
        judgement = Judgement(figures=figures, metrics={}, data="in", sections=[], runtime="", precision="")
        work = EvaluateWork(backend, NONE, cast("Any", Generator()), partial(found_by, judgement), threading.Lock())
        found.append(work.make(spec, Lease("judged", 0, ""), 0))
    commit, stale = found
    store.put(keys.commit(0), commit.to_json())
    store.put(keys.plan, Plan(shards=1, items=1).to_json())
    rebuild(backend, "judged")

    # I expect the figures of the commit, and nothing to be left of the twin.
    finalize(backend, "judged")
    assert store.get(f"{keys.root}out/evaluation.json") == b"1"
    assert store.exists(keys.report)
    assert len(below(store, keys.attempt_prefix)) == 2
    assert {parse_s3(output.address)[1] for output in stale.outputs}.isdisjoint(
        entry.key for entry in store.list(keys.attempt_prefix)
    )


def test_a_stale_training_does_not_touch_what_is_published(store: ObjectStore) -> None:
    # Given two attempts at one version, whose weights differ in their last bits,
    registry = Registry(store)

    def version(weights: bytes) -> tuple[Model, dict[str, bytes]]:
        file = make_file("weights.safetensors", weights, fenced=True)
        return MODEL.model_copy(update={"name": "birds", "version": 1, "weights": file, "files": ()}), {
            file.name: weights
        }

    first, late = version(b"first"), version(b"late")
    assert registry.publish(*first)

    # if the second had looked before the first was published, and writes after it,
    for file in (late[0].weights,):
        store.put(f"models/birds/1/{file.object}", b"late")
    assert not registry.enter(late[0])

    # I expect the model that was published.
    model = registry.get("birds@1")
    registry.verify(model)
    assert registry.read(model, model.weights) == b"first"


def test_older_versions_read_what_no_training_published() -> None:
    assert b'"object"' not in MODEL.to_json()
