"""Deleting: what nobody needs goes, what anybody may need stays, and who dies in the middle leaves no half job."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from contract.errors import JobConflict, UnknownJob
from contract.jobs import index, retention
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, active_jobs, close, read_spec, reopen, submit
from contract.jobs.specs import Classify, Source
from contract.keys.bucket import INDEX
from contract.keys.index import INDEX_STATE, deleting
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from contract.times import iso
from producer import Client
from tests.waiting import wait_until
from worker.control.clean import clean

DAY = 86_400.0
Made = Callable[..., Classify]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tick delete all that is over: two seconds are less than a busy machine may stand still."""
    monkeypatch.setattr("worker.control.clean._SECONDS", 3600.0)


@pytest.fixture
def job(backend: Backend) -> Made:
    """Make a job that ended some days ago, or one that has not with None."""

    def make(id: str, ended_days_ago: float | None, state: Any = "succeeded", **fields: Any) -> Classify:
        bucket = backend.store.bucket
        source = fields.pop("source", Source(kind="prefix", uri=f"s3://{bucket}/photos/", label="photos"))
        output = f"s3://{bucket}/jobs/{id}/out/"
        spec = Classify(id=id, source=source, model="m@1", weights_sha256="0" * 64, output=output, **fields)
        submit(backend, spec)
        own = JobKeys(id)
        for key in (own.tar(0), own.manifest(0), f"{own.root}out/shard-000000.parquet"):
            backend.store.put(key, b"x" * 100)
        if ended_days_ago is not None:
            close(backend, id, state, finished_at=iso(time.time() - ended_days_ago * DAY))
        return spec

    return make


def objects(backend: Backend, job: str) -> set[str]:
    """Everything in the bucket that names a job."""
    return {entry.key for entry in backend.store.list("") if job in entry.key}


def test_a_page_is_read_from_the_index(backend: Backend, job: Made, settings: Settings) -> None:
    # Given jobs that ended one after the other, and two that run,
    for n in range(25):
        job(f"job-{n:02d}", 100 - n)
    job("running-1", None)
    job("running-2", None)
    with closing(Client(settings)) as client:
        # if they are listed by pages, I expect the running ones first, the others by their ends, and each once.
        pages = [client.jobs(limit=10)]
        while len(pages[-1]) == 10:
            pages.append(client.jobs(limit=10, before=pages[-1][-1].id))
        listed = [status.id for page in pages for status in page]
        assert set(listed[:2]) == {"running-1", "running-2"}
        assert listed[2:] == [f"job-{n:02d}" for n in reversed(range(25))]
        with pytest.raises(UnknownJob, match="has not ended"):
            client.jobs(limit=10, before="running-1")
        with pytest.raises(UnknownJob):
            client.jobs(limit=10, before="no-such-job")


def test_a_job_that_is_taken_up_again_is_listed_once(backend: Backend, job: Made, settings: Settings) -> None:
    job("again", 5, "canceled")
    job("other", 4)
    reopen(backend, "again")
    with closing(Client(settings)) as client:
        assert [one.id for one in client.jobs(limit=10)] == ["again", "other"]
        close(backend, "again", "failed", finished_at=iso(time.time() - 3 * DAY))
        assert [(one.id, one.state) for one in client.jobs(limit=10)] == [("again", "failed"), ("other", "succeeded")]
    # Nor is it deleted for the sake of its first end.
    assert retention.expire(backend, 3.5) == [retention.Found("ended job", "other", *_size_of_one())]
    assert read_end(backend.store, "again") is not None


def _size_of_one() -> tuple[Any, Any]:
    class Anything:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    return Anything(), Anything()


def test_the_index_is_built_from_the_bucket(backend: Backend, job: Made, settings: Settings) -> None:
    # Given a bucket whose jobs ended before there was an index,
    for n in range(7):
        job(f"job-{n}", 10 - n, keep_days=5.0 if n == 3 else None)
    before = sorted(entry.key for entry in backend.store.list(INDEX))
    for key in before:
        backend.store.delete(key)
    # if it is built three jobs at a time, I expect it to be as it was.
    steps = 1
    while not retention.build(backend.store, 3):
        steps += 1
    assert steps == 3
    built = sorted(entry.key for entry in backend.store.list(INDEX) if entry.key != INDEX_STATE)
    assert built == before
    with closing(Client(settings)) as client:
        client.rebuild_index()
        assert [one.id for one in client.jobs(limit=3)] == ["job-6", "job-5", "job-4"]


def test_only_what_is_over_is_deleted(backend: Backend, job: Made, settings: Settings) -> None:
    # Given jobs with and without a retention of their own, some over,
    job("own-over", 3, keep_days=2.0)
    job("own-not-over", 3, keep_days=4.0)
    job("default-over", 11)
    job("default-not-over", 9)
    job("own-longer", 50, keep_days=100.0)
    job("failed-over", 11, "failed")
    job("failed-not-over", 9, "failed")
    job("running", None)
    # and one that is over and whose images another one needs,
    job("needed", 30)
    job("user", 1, source=Source(kind="prefix", uri=f"s3://{backend.store.bucket}/jobs/needed/in/", label="x"))
    with closing(Client(settings.model_copy(update={"keep_days": 10.0}))) as client:
        # if I only look, I expect to be told, and nothing to be deleted;
        everything = {entry.key for entry in backend.store.list("jobs/")}
        told = {found.job for found in client.gc(dry_run=True)}
        assert told == {"own-over", "default-over", "failed-over"}
        assert {entry.key for entry in backend.store.list("jobs/")} == everything
    # if the controller cleans up, I expect exactly these to go, without a trace,
    clean(backend, settings.model_copy(update={"keep_days": 10.0}))
    for id in told:
        assert not objects(backend, id)
        with pytest.raises(UnknownJob):
            read_spec(backend.store, id)
    # and nothing of the others.
    assert {entry.key for entry in backend.store.list("jobs/")} == {
        key for key in everything if key.split("/")[1] not in told
    }
    assert active_jobs(backend.store) == ["running"]


def test_jobs_are_removed_by_hand(backend: Backend, job: Made, settings: Settings) -> None:
    job("running", None)
    job("base", 1)
    job("user", 1, "failed", source=Source(kind="job", uri="base", label="job:base"))
    with closing(Client(settings)) as client:
        for wrong, why in (("running", "has not ended"), ("base", "user needs the images of base")):
            with pytest.raises(JobConflict, match=why):
                client.remove_jobs(["user", wrong] if wrong == "running" else [wrong])
        with pytest.raises(UnknownJob):
            client.remove_jobs(["base", "user", "no-such-job"])
        # One mistake, and nothing is deleted;
        assert {one.id for one in client.jobs(limit=10)} == {"running", "base", "user"}
        # named together, both go.
        client.remove_jobs(["base", "user"])
        assert [one.id for one in client.jobs(limit=10)] == ["running"]
    assert not objects(backend, "base") and not objects(backend, "user")
    # The id may be used again.
    job("base", None)
    assert read_end(backend.store, "base") is None


class Killed(BaseException):
    """Ends a deletion as a SIGKILL would."""


def test_a_deletion_that_dies_anywhere_is_completed(
    backend: Backend, job: Made, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a deletion that dies before its first, second, third … write,
    store = backend.store
    for death in range(1, 12):
        id = f"job-{death}"
        job(id, 1, keep_days=0.0)
        left = [death]

        def dies(real: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
                return real(*args, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("put", "delete", "delete_all"):
                patch.setattr(store, name, dies(getattr(store, name)))
            try:
                retention.remove(backend, id)
            except Killed:
                # I expect a job that has ended, or none; never one that runs,
                assert not store.exists(JobKeys(id).spec) or read_end(store, id) is not None
                assert id not in active_jobs(store)
            else:
                break
        # which nobody can submit or resume as if it were whole,
        if store.exists(deleting(id)):
            with pytest.raises(JobConflict, match="being deleted"):
                job(id, None)
        # and the next tick to delete the rest.
        clean(backend, settings)
        assert not objects(backend, id)
    assert death > 5


def test_a_job_that_is_resumed_meanwhile_stays(
    backend: Backend, job: Made, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that is taken up between the note that it is to be deleted and the deletion,
    job("raced", 30, "canceled")
    before = {key for key in objects(backend, "raced") if not key.startswith("index/")}
    put = backend.store.put

    def then_resumed(key: str, data: bytes, **options: Any) -> None:
        put(key, data, **options)
        if key == deleting("raced"):
            put(JobKeys("raced").run_start(1), b'{"run": 1, "opened_at": "", "token": "x"}')

    monkeypatch.setattr(backend.store, "put", then_resumed)
    with pytest.raises(JobConflict, match="taken up again"):
        retention.remove(backend, "raced")
    # I expect nothing of it to be gone.
    assert before <= objects(backend, "raced")
    assert not backend.store.exists(deleting("raced"))


def test_uploads_without_a_job_go_after_a_week(
    backend: Backend, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.store.put(JobKeys("abandoned").tar(0), b"x" * 1000)
    with closing(Client(settings)) as client:
        assert not list(client.gc())
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 8 * DAY)
        (found,) = client.gc()
    assert (found.what, found.job, found.bytes) == ("upload without a job", "abandoned", 1000)
    assert not objects(backend, "abandoned")


def test_what_a_job_left_goes_once_it_has_succeeded(backend: Backend, job: Made, settings: Settings) -> None:
    for id, state in (("done", "succeeded"), ("stopped", "canceled")):
        job(id, 1, state)
        backend.store.put(JobKeys(id).checkpoint(1000), b"x" * 10)
    with closing(Client(settings)) as client:
        assert [(found.what, found.job) for found in client.gc(dry_run=True)] == [("checkpoints", "done")]
        assert [found.bytes for found in client.gc()] == [10]
        assert not list(client.gc())
    assert backend.store.exists(JobKeys("stopped").checkpoint(1000))


def test_uses_are_known_before_the_job(backend: Backend, job: Made) -> None:
    job("base", 1)
    spec = job("user", None, source=Source(kind="job", uri="base", label="job:base"))
    assert index.uses(backend.store, spec) == ("base",)
    assert index.users(backend.store, "base") == ["user"]
    with pytest.raises(JobConflict, match="user needs"):
        retention.check_removable(backend.store, "base")


def test_deletions_that_fail_each_time_keep_no_other_from_going_on(
    backend: Backend, job: Made, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given deletions that were interrupted, of which the first two always fail,
    monkeypatch.setattr("worker.control.clean._DELETED", 2)
    for id in ("a", "b", "c"):
        job(id, 1)
        backend.store.put(deleting(id), b"{" if id < "c" else b"{}")

    # I expect the third to be completed within some ticks.
    def completed() -> bool:
        clean(backend, settings)
        return not objects(backend, "jobs/c/")

    wait_until(completed, 60, "the third deletion")


def test_a_job_that_cannot_be_read_keeps_no_other_from_its_end(backend: Backend, job: Made, settings: Settings) -> None:
    # Given two jobs whose retention is over, of which one has a spec that somebody overwrote,
    for id in ("broken", "whole"):
        job(id, 2, keep_days=1.0)
    backend.store.put(JobKeys("broken").spec, b"{")

    # I expect the other to be deleted.
    clean(backend, settings)
    assert not objects(backend, "whole")
    assert backend.store.exists(JobKeys("broken").spec)
