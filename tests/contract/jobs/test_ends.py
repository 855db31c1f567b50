"""The end of a run in the bucket, and what older versions left there. Races are in `tests/attacks/test_ends.py`."""

from __future__ import annotations

import json

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import JobConflict
from contract.jobs import ends, index, lifecycle
from contract.jobs.ends import Standing, open_run, read_end, read_standing, write_end
from contract.jobs.lifecycle import Backend, active_jobs
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Shards, Status
from contract.keys.jobs import JobKeys
from tests.taking import take

KEYS = JobKeys("job")
DONE = Status(id="job", kind="classify", state="succeeded", total=4, done=4, ok=4, labels={"a": 4}, error_codes={})
CANCELED = Status(id="job", kind="classify", state="canceled")


@pytest.fixture
def spec(backend: Backend) -> Classify:
    made = Classify(
        id="job",
        source=Source(kind="prefix", uri=f"s3://{backend.store.bucket}/in/", label="in"),
        model="m@1",
        weights_sha256="0" * 64,
        output=f"s3://{backend.store.bucket}/out/",
    )
    lifecycle.submit(backend, made)
    return made


def test_who_comes_second_gets_the_end_that_stands(store: ObjectStore) -> None:
    assert write_end(store, "job", 0, CANCELED) == CANCELED
    assert write_end(store, "job", 0, DONE) == CANCELED
    assert read_standing(store, "job") == Standing(0, CANCELED)


def test_each_run_has_an_end_of_its_own(store: ObjectStore) -> None:
    write_end(store, "job", 0, CANCELED)
    assert open_run(store, "job", 1)
    assert not open_run(store, "job", 1), "somebody else has opened it"
    assert read_standing(store, "job") == Standing(1, None)

    # If a process of the first run comes late, I expect the second to stay open.
    assert write_end(store, "job", 0, DONE) == CANCELED
    assert read_end(store, "job") is None

    write_end(store, "job", 1, DONE)
    assert read_standing(store, "job") == Standing(1, DONE)


def test_the_bucket_of_an_older_version_is_read(store: ObjectStore) -> None:
    assert read_standing(store, "job") == Standing(0, None)
    store.put("jobs/job/end.json", DONE.to_json())
    assert read_standing(store, "job") == Standing(0, DONE)


def names(store: ObjectStore) -> list[str]:
    return sorted([entry.key for entry in store.list("out/")] + [entry.key for entry in store.list("active/")])


def test_what_is_derived_follows_the_end(backend: Backend, spec: Classify) -> None:
    store = backend.store
    assert names(store) == ["active/job"]
    write_end(store, "job", 0, DONE)
    ends.publish(store, spec)
    assert names(store) == ["out/_SUCCESS", "out/labels.csv", "out/summary.json"]
    assert store.exists(KEYS.success)
    assert json.loads(store.get("out/summary.json"))["state"] == "succeeded"
    assert store.get("out/labels.csv") == b"label,images\na,4\n"

    # If it is opened again, and canceled, I expect no sign of the success.
    open_run(store, "job", 1)
    ends.publish(store, spec)
    assert names(store) == ["active/job"]
    write_end(store, "job", 1, CANCELED)
    ends.publish(store, spec)
    assert names(store) == []
    assert not store.exists(KEYS.success)


def test_a_job_that_runs_again_is_no_more_among_those_that_have_ended(backend: Backend, spec: Classify) -> None:
    def entries() -> list[tuple[str, int, bool]]:
        return [(id, run, backend.store.exists(KEYS.active)) for _, id, run, _ in index.ended(backend.store)]

    lifecycle.cancel(backend, "job")
    assert entries() == [("job", 0, False)]
    lifecycle.reopen(backend, "job")
    assert entries() == [] and backend.store.exists(KEYS.active)
    lifecycle.cancel(backend, "job")
    assert entries() == [("job", 1, False)]


def test_a_bucket_for_the_results_that_refuses_keeps_no_job_from_its_end(
    backend: Backend, spec: Classify, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a job whose results go to a bucket that no longer takes any,
    store = backend.store
    gone = spec.model_copy(update={"output": "s3://b/out/"})
    store.put(KEYS.spec, store.get(KEYS.spec).replace(spec.output.encode(), gone.output.encode()))

    # if it ends, I expect the end to stand, ledger included, and a sentence in the log.
    assert lifecycle.close(backend, "job", "succeeded", labels={"a": 4}).state == "succeeded"
    assert backend.ledger.state("job") == "succeeded"
    assert not store.exists(KEYS.active)
    assert "The summary of job cannot be written: s3://b/out/" in caplog.text


def test_a_cancel_answers_with_the_end(backend: Backend, spec: Classify) -> None:
    end = lifecycle.cancel(backend, "job")
    assert end == read_end(backend.store, "job") == lifecycle.cancel(backend, "job")
    lifecycle.reopen(backend, "job")
    lifecycle.close(backend, "job", "failed", "It could not.")
    with pytest.raises(JobConflict, match="has failed already"):
        lifecycle.cancel(backend, "job")


@pytest.mark.parametrize("damage", [b"{", b"{}", None])
def test_a_job_whose_spec_was_damaged_can_be_canceled(backend: Backend, spec: Classify, damage: bytes | None) -> None:
    # Given a job whose spec somebody overwrote, or of a kind that only a newer version knows,
    store, whole = backend.store, backend.store.get(KEYS.spec)
    store.put(KEYS.spec, damage or whole.replace(b'"classify"', b'"count"'))

    # I expect a cancel to end it in the bucket and in the ledger, twice with the same answer,
    end = lifecycle.cancel(backend, "job")
    assert (end.state, end.kind, end.model) == ("canceled", "classify", "m@1")
    assert end == read_end(store, "job") == lifecycle.cancel(backend, "job")
    assert backend.ledger.state("job") == "canceled"

    # and the rest to follow once the spec is restored.
    store.put(KEYS.spec, whole)
    assert active_jobs(store) == ["job"]
    lifecycle.settle(backend, "job")
    assert active_jobs(store) == []
    assert [id for _, id, *_ in index.ended(store)] == ["job"]


def test_the_ledger_of_a_later_run_is_not_ended_by_an_earlier_one(backend: Backend, spec: Classify) -> None:
    lifecycle.cancel(backend, "job")
    lifecycle.reopen(backend, "job")
    assert backend.ledger.run("job") == 1
    backend.ledger.end("job", "canceled", run=0)
    assert backend.ledger.state("job") == "queued"
    backend.ledger.end("job", "canceled", run=1)
    assert backend.ledger.state("job") == "canceled"


def test_no_shard_of_a_job_that_has_ended_runs_or_waits(backend: Backend, spec: Classify) -> None:
    # Given a job with a shard that is committed, one that runs, and one that waits,
    ledger = backend.ledger
    for shard in range(3):
        ledger.planned("job", shard, 4)
    for shard in range(2):
        assert take(ledger, "job", shard, f"w:{shard}")[0] == "taken"
    ledger.commit("job", 0, 3, 1)
    assert ledger.renew("job", 1, "w:1", 2, 0) == "renewed"
    running = lifecycle.status(backend, "job")
    assert (running.done, running.shards) == (6, Shards(total=3, done=1, running=1, queued=1))

    # if it is canceled, I expect its end to count the rows that there are.
    end = lifecycle.cancel(backend, "job")
    assert (end.done, end.ok, end.errors, end.shards) == (4, 3, 1, Shards(total=3, done=1))
    assert lifecycle.status(backend, "job") == end
