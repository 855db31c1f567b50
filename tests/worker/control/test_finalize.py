"""The finalizer of labels: stopped, killed, overtaken, and handed what is damaged."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import read_manifest, write_manifest
from contract.errors import NewerVersion
from contract.jobs import lifecycle
from contract.jobs.commits import iter_commits
from contract.jobs.ends import read_end, read_standing
from contract.jobs.lifecycle import Backend, rebuild, reopen
from contract.jobs.specs import Classify
from contract.jobs.status import Retry, ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import child_shards
from tests.taking import take
from tests.waiting import wait_until
from tests.worker.conftest import Jobs, Runners
from worker.control.finalize import finalize
from worker.control.finalizers import Finalizers

KEYS = JobKeys("job")
Label = Callable[..., Classify]


@pytest.fixture
def labelled(backend: Backend, job: Jobs, runner_of: Runners) -> Label:
    """Makes a job whose shards are all committed, of which one image is bad."""

    def make(**options: object) -> Classify:
        spec = job(b"\x01", b"\x02", b"!", b"\x03", b"\x05", shard_size=2, max_errors="100%", **options)
        for shard in range(3):
            runner_of().run("job", shard)
        assert backend.ledger.state("job") == "finalizing"
        return spec

    return make


class StoppedError(BaseException):
    """What ends a process in the middle."""


def stop_at(monkeypatch: pytest.MonkeyPatch, call: str, nth: int) -> None:
    """Let the nth call of a method of the store be the last thing that a process does."""
    inner = getattr(ObjectStore, call)
    calls = iter(range(nth, -1, -1))

    def stopping(self: ObjectStore, *args: object, **options: object) -> object:
        if next(calls) == 0:
            raise StoppedError
        return inner(self, *args, **options)

    monkeypatch.setattr(ObjectStore, call, stopping)


@pytest.mark.parametrize(
    ("call", "nth"), [("put_if_absent", 0), ("put", 0), ("put", 1), ("put", 2), ("put", 3), ("delete", 0)]
)
def test_wherever_a_finalizer_dies_the_next_one_completes_its_work(
    backend: Backend, labelled: Label, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    # Given a finalizer that dies at a call to the store,
    labelled()
    with monkeypatch.context() as patch:
        stop_at(patch, call, nth)
        with suppress(StoppedError):
            finalize(backend, "job")

    # if the next one comes, I expect the same end and all that follows from it.
    finalize(backend, "job")
    end = read_end(backend.store, "job")
    assert end is not None
    assert (end.state, end.total, end.ok, end.errors) == ("succeeded", 5, 4, 1)
    assert (end.labels, end.error_codes) == ({"odd": 3, "even": 1}, {"not_an_image": 1})
    assert (end.shards.total, end.shards.done) == (3, 3)
    assert backend.ledger.state("job") == "succeeded"
    assert json.loads(backend.store.get("jobs/job/out/summary.json"))["errors"] == 1
    assert backend.store.exists("jobs/job/out/_SUCCESS") and backend.store.exists(KEYS.success)
    assert not backend.store.exists(KEYS.active)


def test_a_finalizer_that_lost_its_lock_ends_nothing(
    backend: Backend, labelled: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a finalizer whose lock expired while it counted, and that another holds now,
    labelled()
    read_plan = lifecycle.read_plan

    def stand_still(store: ObjectStore, id: str) -> object:
        name = backend.ledger.keys.lock("finalize", id)
        backend.ledger.redis.set(name, "another")
        return read_plan(store, id)

    monkeypatch.setattr("worker.control.finalize.read_plan", stand_still)

    # I expect it to leave, and the lock to stay with its holder.
    finalize(backend, "job")
    assert read_end(backend.store, "job") is None
    assert backend.ledger.redis.get(backend.ledger.keys.lock("finalize", "job")) == "another"


def test_a_commit_that_is_damaged_ends_the_job_with_a_sentence(backend: Backend, labelled: Label) -> None:
    labelled()
    backend.store.put(KEYS.commit(1), b"{}")
    finalize(backend, "job")
    end = read_end(backend.store, "job")
    assert end is not None and end.state == "failed"
    assert "commit/shard-000001.json is not a commit that this version can read" in str(end.reason)

    # As it says: delete it, and resume.
    backend.store.delete(KEYS.commit(1))
    assert reopen(backend, "job").state == "running"


def test_a_commit_of_a_newer_version_is_left_to_a_controller_of_it(backend: Backend, labelled: Label) -> None:
    labelled()
    ours = backend.store.get(KEYS.commit(1))
    backend.store.put(KEYS.commit(1), json.dumps(json.loads(ours) | {"energy": 1.5}).encode())
    with pytest.raises(NewerVersion):
        finalize(backend, "job")
    assert read_end(backend.store, "job") is None


def test_a_job_that_was_canceled_while_it_was_counted_stays_canceled(
    backend: Backend, labelled: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled()
    answered = []
    close = lifecycle.close

    def late(backend: Backend, id: str, *args: str, **details: object) -> object:
        answered.append(lifecycle.cancel(backend, id))
        return close(backend, id, *args, **details)  # type: ignore[arg-type]

    monkeypatch.setattr("worker.control.finalize.close", late)
    finalize(backend, "job")
    assert answered == [read_end(backend.store, "job")]
    assert backend.ledger.state("job") == "canceled"
    assert not backend.store.exists("jobs/job/out/_SUCCESS")
    assert not backend.store.exists("jobs/job/out/summary.json")


def test_a_job_that_was_canceled_while_commits_were_missed_is_not_taken_up_again(
    backend: Backend, labelled: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a ledger that counts a shard whose commit is lost, and a cancel that comes while the others are counted,
    labelled()
    backend.store.delete(KEYS.commit(1))
    read_plan = lifecycle.read_plan

    def late(store: ObjectStore, id: str) -> object:
        lifecycle.cancel(backend, id)
        return read_plan(store, id)

    monkeypatch.setattr("worker.control.finalize.read_plan", late)
    finalize(backend, "job")
    end = read_end(backend.store, "job")
    assert end is not None and end.state == "canceled"
    assert backend.ledger.state("job") == "canceled"


def test_a_retry_has_the_last_word_about_its_shards_alone(
    backend: Backend, labelled: Label, runner_of: Runners
) -> None:
    # Given a job that ended with an error row, whose image was mended, and that is retried,
    labelled()
    finalize(backend, "job")
    found = read_standing(backend.store, "job")
    backend.store.put("in/2", b"\x07")
    reopen(backend, "job", found, Retry(number=1, shards=(1,)))
    assert not backend.store.exists("jobs/job/out/_SUCCESS"), "it runs again"

    # I expect the shard that was retried alone to run, and its earlier rows to be removed.
    runner_of().run("job", 1)
    finalize(backend, "job")
    end = read_end(backend.store, "job")
    assert end is not None and (end.state, end.ok, end.errors) == ("succeeded", 5, 0)
    assert {(one.shard, one.retry) for one in iter_commits(backend.store, "job")} == {(0, 0), (1, 1), (2, 0)}
    out = [entry.key for entry in backend.store.list("jobs/job/out/") if entry.key.endswith(".parquet")]
    assert out == [f"jobs/job/out/shard-00000{stem}.parquet" for stem in ("0", "1-r1", "2")]
    assert [entry.key for entry in backend.store.list(KEYS.run_prefix)] == [KEYS.run_end(1), KEYS.run_start(1)]


def test_a_rebuild_with_bisected_shards_is_running_until_each_half_is_done(
    backend: Backend, job: Jobs, runner_of: Runners
) -> None:
    # Given a job of two shards, of which one was bisected and the other, and one half, are done,
    job(b"\x01", b"\x02", b"\x03", b"\x04", shard_size=2)
    runner_of().run("job", 0)
    halves = child_shards(1, planned=2)
    for half, item in zip(halves, read_manifest(backend.store.get(KEYS.manifest(1))), strict=True):
        backend.store.put(KEYS.manifest(half), write_manifest([item]))
    backend.store.put(KEYS.commit(1), ShardCommit(shard=1, items=2, ok=0, errors=0, split=halves).to_json())
    backend.ledger.commit("job", 1, 0, 0, halves)
    runner_of().run("job", halves[0])

    # if Redis forgets all, I expect the other half to be queued, and no more.
    backend.ledger.redis.flushall()
    status = rebuild(backend, "job")
    assert (status.state, status.done, status.shards.total) == ("running", 3, 4)
    assert backend.ledger.lapsed("job").ready == 1
    assert [take(backend.ledger, "job", shard, "w")[0] for shard in (0, 1, halves[0])] == ["done"] * 3
    runner_of().run("job", halves[1])
    finalize(backend, "job")
    assert backend.ledger.state("job") == "succeeded"


def test_jobs_are_finalized_beside_the_tasks_each_once(
    backend: Backend, labelled: Label, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that takes its time to be counted,
    labelled()
    counted, go_on = [], threading.Event()
    read_plan = lifecycle.read_plan

    def slow(store: ObjectStore, id: str) -> object:
        counted.append(id)
        assert go_on.wait(60)
        return read_plan(store, id)

    monkeypatch.setattr("worker.control.finalize.read_plan", slow)
    finalizers = Finalizers(backend, 30.0)

    # if it is asked for again and again, I expect each call to return at once, and one finalizer.
    for _ in range(3):
        finalizers.finalize("job")
    wait_until(lambda: bool(counted), 10, "the finalizer")
    assert read_end(backend.store, "job") is None
    go_on.set()
    wait_until(lambda: read_end(backend.store, "job") is not None, 10, "the end")
    assert counted == ["job"]
    finalizers.leave()


def test_a_finalizer_that_is_told_to_leave_stops_at_the_next_commit(backend: Backend, labelled: Label) -> None:
    labelled()
    leaving = threading.Event()
    leaving.set()
    finalize(backend, "job", leaving=leaving)
    assert read_end(backend.store, "job") is None
    assert not backend.ledger.locked("finalize", "job"), "the next one need not wait"
    finalize(backend, "job")
    assert read_end(backend.store, "job") is not None
