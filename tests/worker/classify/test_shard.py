"""One shard, from its lease to its commit, and every place where a worker may die in between."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest

from contract.backend.ledger import Ledger, Mode
from contract.backend.trouble import Trouble
from contract.data.items import Item, parse_s3, read_manifest, write_manifest
from contract.data.label_rows import schema
from contract.errors import DeviceOutOfMemory, InvalidSettings, ModelError, StoreUnavailable
from contract.jobs.commits import read_commit
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, rebuild, reopen, submit
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Plan, Retry
from contract.keys.jobs import JobKeys
from contract.keys.shards import MAX_OPEN_SHARDS, child_shards
from contract.settings import Settings
from tests.taking import take
from tests.waiting import wait_until
from tests.worker.conftest import FakeEngine, FakeModels, Runners
from worker.classify.rows import read_rows
from worker.classify.summary import Summary
from worker.control.finalize import finalize
from worker.engine.images import decoders
from worker.engine.pipeline import Encoded, Result

Jobs = Callable[..., Classify]


def rows(backend: Backend, job: str, shard: int, retry: int = 0) -> list[dict[str, Any]]:
    commit = read_commit(backend.store, job, shard, retry)
    assert commit.output is not None
    bucket, key = parse_s3(commit.output)
    data = backend.store.get(key, bucket=bucket)
    assert hashlib.sha256(data).hexdigest() == commit.sha256
    return read_rows(data)


def counts(backend: Backend, job: str) -> tuple[int, int, int]:
    status = backend.ledger.status(job)
    assert status is not None
    return status.done, status.ok, status.errors


def test_a_shard_becomes_rows_in_the_order_of_its_manifest(backend: Backend, job: Jobs, runner_of: Runners) -> None:
    job(b"\x02", b"\x01", b"!", b"\x03")

    runner_of().run("job", 0)

    found = rows(backend, "job", 0)
    assert [(r["key"], r["status"], r["label"], r["error_code"]) for r in found] == [
        ("0", "ok", "even", None),
        ("1", "ok", "odd", None),
        ("2", "error", None, "not_an_image"),
        ("3", "ok", "odd", None),
    ]
    assert found[0]["top_k"] == [
        {"label": "even", "label_index": 0, "score": 0.75},
        {"label": "odd", "label_index": 1, "score": 0.25},
    ]
    assert counts(backend, "job") == (4, 3, 1)


@pytest.mark.parametrize("decoder", ["", "nvimgcodec 0.9.0"])
def test_a_commit_says_what_decoded_beside_pillow(
    decoder: str, backend: Backend, job: Jobs, runner_of: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "beside_pillow", lambda: decoder)
    job(b"\x02")

    runner_of().run("job", 0)

    commit = read_commit(backend.store, "job", 0, 0)
    assert commit.decoder == decoder
    # I expect the report to tell such shards apart.
    summary = Summary()
    summary.add(commit, schema().empty_table())
    assert [runtime for _, runtime in summary.work] == ["fake/fp32, nvimgcodec 0.9.0" if decoder else "fake/fp32"]


def test_sequences_of_many_bytes_are_handed_over_a_few_at_a_time(
    backend: Backend, job: Jobs, runner_of: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given five sequences of two frames, of which two fill a batch and more than one is too much to hold,
    spec = job(*(bytes([n]) for n in range(10)), shard_size=10)
    keys = JobKeys(spec.id)
    files = read_manifest(backend.store.get(keys.manifest(0)))
    pairs = [Item.of_frames(f"{n}/", f"s3://b/{n}/", files[2 * n : 2 * n + 2], length=2) for n in range(5)]
    backend.store.put(keys.manifest(0), write_manifest(pairs))
    monkeypatch.setattr("worker.classify.shard._SUBMIT_BYTES", 4)
    monkeypatch.setattr("worker.classify.shard._HELD_BYTES", 2)
    models = FakeModels()
    batches: list[int] = []
    submit = models.engine.submit
    monkeypatch.setattr(models.engine, "submit", lambda batch, **k: batches.append(len(batch)) or submit(batch, **k))

    runner_of(models=models).run("job", 0)

    # I expect small batches, and a row for each sequence in its place.
    assert batches == [2, 2, 1]
    assert [row["key"] for row in rows(backend, "job", 0)] == ["0/", "1/", "2/", "3/", "4/"]


def test_two_workers_on_the_same_shard_commit_it_once(backend: Backend, job: Jobs, runner_of: Runners) -> None:
    """Neither knows of the other: the lease was wiped while the first one was at work."""
    job(*[bytes([n]) for n in range(8)], shard_size=8)
    at_work, both_inside = threading.Event(), threading.Barrier(2, timeout=60)
    inside: list[FakeEngine] = []

    def meet() -> None:
        at_work.set()
        engine = inside[0] if threading.current_thread().name == "one" else inside[1]
        if engine.seen == 0:
            both_inside.wait()

    inside += [FakeEngine(meet), FakeEngine(meet)]

    def first() -> None:
        runner_of("one", FakeModels(inside[0])).run("job", 0)

    def second() -> None:
        while not inside[1].seen:  # the first may renew its lease in between
            backend.ledger.redis.delete(backend.ledger.keys.job("job")[2])
            runner_of("two", FakeModels(inside[1])).run("job", 0)

    one = threading.Thread(target=first, name="one")
    one.start()
    assert at_work.wait(60)
    two = threading.Thread(target=second, name="two")
    two.start()
    one.join()
    two.join()

    assert len(rows(backend, "job", 0)) == 8
    assert counts(backend, "job") == (8, 8, 0)


def test_a_worker_died_between_output_and_marker(backend: Backend, job: Jobs, runner_of: Runners) -> None:
    """The output that stands is adopted, and the commit is of what stands."""
    job(b"\x02", b"!")
    runner_of().run("job", 0)
    before = rows(backend, "job", 0)
    backend.store.delete(JobKeys("job").commit(0))
    reopen(backend, "job")

    engine = FakeEngine()
    backend.store.put("in/1", b"\x01")  # it would be labelled now
    runner_of("next", FakeModels(engine)).run("job", 0)

    assert engine.seen == 2
    assert rows(backend, "job", 0) == before
    assert counts(backend, "job") == (2, 1, 1)


def test_a_worker_died_between_marker_and_ledger(backend: Backend, job: Jobs, runner_of: Runners) -> None:
    """The commit counts, and nothing is labelled again."""
    job(b"\x02", b"\x01", b"\x04", b"\x06", b"\x08")
    runner_of().run("job", 0)
    backend.ledger.redis.flushall()
    reopen(backend, "job")
    assert counts(backend, "job") == (4, 4, 0), "from the commit"

    engine = FakeEngine()
    runner_of("next", FakeModels(engine)).run("job", 0)
    runner_of("next", FakeModels(engine)).run("job", 1)

    assert engine.seen == 1
    assert counts(backend, "job") == (5, 5, 0)


def die(settings: Settings, shard: int, name: str, mode: Mode = "alone") -> None:
    """Begin a shard in a process that dies."""
    with closing(Ledger(settings.model_copy(update={"lease_seconds": 0.05}))) as ledger:
        assert take(ledger, "job", shard, name)[0] == "taken"
        ledger.begin("job", shard, name, mode)
        wait_until(lambda: shard in ledger.lapsed("job").shards, 5, "the lease to lapse")


def test_a_shard_that_killed_its_workers_is_cut_in_two(
    backend: Backend, settings: Settings, job: Jobs, runner_of: Runners
) -> None:
    job(*[bytes([n]) for n in range(5)], shard_size=5)
    die(settings, 0, "dead:0", "shared")
    die(settings, 0, "dead:1")
    die(settings, 0, "dead:2")

    runner_of().run("job", 0)

    halves = child_shards(0, 1)
    assert read_commit(backend.store, "job", 0).split == halves
    manifests = [read_manifest(backend.store.get(JobKeys("job").manifest(half))) for half in halves]
    assert [[item.key for item in items] for items in manifests] == [["0", "1"], ["2", "3", "4"]]
    for half in halves:
        runner_of().run("job", half)
    assert counts(backend, "job") == (5, 5, 0)
    finalize(backend, "job")
    end = read_end(backend.store, "job")
    assert end is not None and (end.state, end.done) == ("succeeded", 5)


def test_a_shard_of_an_open_plan_is_cut_in_two_while_more_shards_come(
    backend: Backend, settings: Settings, runner_of: Runners
) -> None:
    # Given a segment of a watch with one shard, which killed its workers while the plan is open
    bucket = backend.store.bucket
    spec = Classify(
        id="job",
        source=Source(kind="watch", uri=f"s3://{bucket}/in/", label="in"),
        model="parity@1",
        weights_sha256="0" * 64,
        output=f"s3://{bucket}/jobs/job/out/",
    )
    submit(backend, spec)
    keys = JobKeys("job")

    def append(shard: int, *names: str) -> None:
        items = [Item(n, f"s3://{bucket}/in/{n}", modified=1_795_000_000.25, planned_at=1_795_000_001.0) for n in names]
        for name in names:
            backend.store.put(f"in/{name}", bytes([int(name)]))
        backend.store.put(keys.manifest(shard), write_manifest(items))
        backend.ledger.planned("job", shard, len(items))

    append(0, "0", "1")
    die(settings, 0, "dead:0", "shared")
    die(settings, 0, "dead:1")
    die(settings, 0, "dead:2")

    runner_of().run("job", 0)

    # I expect its halves to run behind all shards that may come, also after Redis was wiped,
    halves = child_shards(0, MAX_OPEN_SHARDS)
    assert read_commit(backend.store, "job", 0).split == halves
    append(1, "2")
    backend.ledger.forget("job")
    rebuild(backend, "job")
    for shard in (*halves, 1):
        runner_of().run("job", shard)
    # and the job to end once its plan is closed.
    backend.store.put(keys.plan, Plan(shards=2, items=3).to_json())
    backend.ledger.complete("job", shards=2, items=3, error_limit=0, skipped=0)
    assert counts(backend, "job") == (3, 3, 0)
    finalize(backend, "job")
    end = read_end(backend.store, "job")
    assert end is not None and (end.state, end.done) == ("succeeded", 3)
    # Rows of a watch say when.
    (row,) = rows(backend, "job", 1)
    assert (row["event_time"].timestamp(), row["planned_at"].timestamp()) == (1_795_000_000.25, 1_795_000_001.0)
    assert row["etag"] is None


def test_deaths_beside_others_never_condemn_a_shard(
    backend: Backend, settings: Settings, job: Jobs, runner_of: Runners
) -> None:
    job(b"\x02")
    for n in range(5):
        die(settings, 0, f"dead:{n}", "shared")

    runner_of().run("job", 0)

    assert [row["status"] for row in rows(backend, "job", 0)] == ["ok"]


def test_the_poison_stands_alone_as_an_error_row(
    backend: Backend, settings: Settings, job: Jobs, runner_of: Runners
) -> None:
    job(b"\x02")
    for n in range(2):
        die(settings, 0, f"dead:{n}")

    engine = FakeEngine()
    runner_of(models=FakeModels(engine)).run("job", 0)

    assert engine.seen == 0, "it was not touched again"
    assert [row["error_code"] for row in rows(backend, "job", 0)] == ["worker_killed"]


def test_a_retry_keeps_the_rows_that_were_right(backend: Backend, job: Jobs, runner_of: Runners) -> None:
    job(b"\x02", b"!", b"\x01")
    runner_of().run("job", 0)
    finalize(backend, "job")
    first = rows(backend, "job", 0)
    backend.store.put("in/1", b"\x03")
    backend.store.put(JobKeys("job").retry(1), Retry(number=1, shards=(0,)).to_json())
    reopen(backend, "job")

    engine = FakeEngine()
    runner_of(models=FakeModels(engine)).run("job", 0)
    assert engine.seen == 1
    again = rows(backend, "job", 0, retry=1)
    assert [again[0], again[2]] == [first[0], first[2]]
    assert (again[1]["status"], again[1]["label"]) == ("ok", "odd")

    finalize(backend, "job")
    left = [entry.key for entry in backend.store.list("jobs/job/out/") if entry.key.endswith(".parquet")]
    assert left == ["jobs/job/out/shard-000000-r1.parquet"], "each row is there once"
    end = read_end(backend.store, "job")
    assert end is not None and (end.state, end.ok, end.errors) == ("succeeded", 3, 0)


def test_a_broken_model_ends_the_job_and_says_why(backend: Backend, job: Jobs, runner_of: Runners) -> None:
    job(b"\x02")

    runner_of(models=FakeModels(error=ModelError("The weights do not match."))).run("job", 0)

    end = read_end(backend.store, "job")
    assert end is not None and (end.state, end.reason) == ("failed", "The weights do not match.")


@pytest.mark.parametrize(
    ("error", "unfit", "faults", "waits"),
    [
        (StoreUnavailable("away"), None, 0, 1),
        (RuntimeError("a bug"), None, 1, 0),
        (DeviceOutOfMemory("full"), None, 1, 0),
        (InvalidSettings("no such device"), None, 1, 0),
        (RuntimeError("the device is broken"), RuntimeError("so it is"), 0, 0),
    ],
)
def test_no_error_counts_like_a_death(
    backend: Backend,
    job: Jobs,
    runner_of: Runners,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    unfit: Exception | None,
    faults: int,
    waits: int,
) -> None:
    monkeypatch.setattr(Trouble, "pause", lambda _: 0.0)
    job(b"\x02")
    left: list[str] = []

    runner_of(models=FakeModels(error=error), unfit=unfit, left=left.append).run("job", 0)

    answer, trouble = take(backend.ledger, "job", 0, "next:1")
    assert (answer, trouble.kills, trouble.suspect) == ("taken", 0, False)
    assert (trouble.faults, trouble.waits) == (faults, waits)
    assert len(left) == (unfit is not None), "a process that fails its self-test leaves, and only such a one"


def test_a_job_fails_with_the_error_once_enough_workers_raised_it_for_long_enough(
    backend: Backend, job: Jobs, runner_of: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trouble, "pause", lambda _: 0.0)
    job(b"\x02")
    broken = FakeModels(error=RuntimeError("no kernel image"))

    # Given a shard that raises wherever it runs, I expect three workers to try, and not the job to end before its time,
    for name in ("one", "two", "three"):
        runner_of(name, broken, fault_seconds=3600.0).run("job", 0)
    assert read_end(backend.store, "job") is None

    # and when it has raised for long enough, a sentence with the error.
    runner_of("four", broken).run("job", 0)
    end = read_end(backend.store, "job")
    assert end is not None and end.state == "failed"
    assert "failed on 4 workers" in str(end.reason) and "RuntimeError: no kernel image" in str(end.reason)


def test_an_image_that_raises_is_found_and_blamed_only_by_a_second_process(
    backend: Backend, job: Jobs, runner_of: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trouble, "pause", lambda _: 0.0)
    job(*(bytes([n]) for n in range(2, 10)), shard_size=8)

    class Picky(FakeEngine):
        """Raises if there is a seven among the images."""

        def submit(self, items: Sequence[Encoded], **options: Any) -> Future[list[Result]]:
            if b"\x07" in items:
                failed: Future[list[Result]] = Future()
                failed.set_exception(RuntimeError("seven"))
                return failed
            return super().submit(items, **options)

    # Given an image on which the runtime raises, if one process has tried it alone, I expect no verdict yet,
    runner_of("one", FakeModels(Picky())).run("job", 0)
    assert not list(backend.store.list("jobs/job/commit/"))

    # nor if the same process would try it again: it asks to be started afresh.
    left: list[str] = []
    runner_of("one", FakeModels(Picky()), left=left.append).run("job", 0)
    assert len(left) == 1 and not list(backend.store.list("jobs/job/commit/"))

    # A second process makes it one error row, and the others have their labels.
    runner_of("two", FakeModels(Picky())).run("job", 0)
    found = rows(backend, "job", 0)
    assert [row["error_code"] for row in found] == [None] * 5 + ["inference_failed"] + [None] * 2
    assert "in 2 processes" in str(found[5]["error_message"]) and "RuntimeError: seven" in str(
        found[5]["error_message"]
    )


def test_a_runtime_that_raises_for_a_known_good_image_blames_nothing(
    backend: Backend, job: Jobs, runner_of: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trouble, "pause", lambda _: 0.0)
    job(b"\x02", b"!")

    def raises() -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    for name in ("one", "two", "three"):
        runner_of(name, FakeModels(FakeEngine(raises)), fault_seconds=60.0).run("job", 0)
    assert not list(backend.store.list("jobs/job/commit/"))

    runner_of("four").run("job", 0)
    assert [row["error_code"] for row in rows(backend, "job", 0)] == [None, "not_an_image"]


def test_a_job_over_its_budget_fails_and_keeps_its_rows(backend: Backend, job: Jobs, runner_of: Runners) -> None:
    job(b"!", b"!", b"\x01", b"\x02", b"\x03", b"\x05", shard_size=3, max_errors="1")
    runner_of().run("job", 0)
    runner_of().run("job", 1)
    finalize(backend, "job")

    end = read_end(backend.store, "job")
    assert end is not None and end.state == "failed"
    assert end.reason == "2 of 6 images failed, more than --max-errors 1 allows."
    assert end.done == 3, "the second shard was not begun"
