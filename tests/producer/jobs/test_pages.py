"""What a page of ended jobs costs the store, however many jobs there are."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs import index
from contract.jobs.lifecycle import Backend, active_jobs, submit
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from producer.jobs.following import list_jobs
from producer.jobs.pages import FIRST_ENDED, RecentEnds, listed, page


def spec_of(id: str) -> Classify:
    source = Source(kind="prefix", uri="s3://b/x/", label="x")
    return Classify(id=id, source=source, model="m@1", weights_sha256="0" * 64, output=f"s3://b/jobs/{id}/out/")


def end(store: ObjectStore, number: int, owner: str = "ann") -> None:
    id = f"job-{number:03d}"
    time = f"2026-11-26T10:{number // 60:02d}:{number % 60:02d}.000Z"
    status = Status(id=id, kind="classify", state="succeeded", owner=owner, created_at=time, finished_at=time)
    store.put(JobKeys(id).end, status.to_json())
    index.record_end(store, spec_of(id), status, 0)


def test_a_page_reads_the_ends_that_it_shows_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        end(backend.store, number)
    read: list[str] = []
    listings: list[int] = []
    get, page = ObjectStore.get, ObjectStore._page

    def counted(store: ObjectStore, key: str, **options: object) -> bytes:
        read.append(key)
        return get(store, key, **options)  # type: ignore[arg-type]

    def listing(store: ObjectStore, *args: object) -> object:
        found = page(store, *args)  # type: ignore[arg-type]
        listings.append(len(found.entries))
        return found

    monkeypatch.setattr(ObjectStore, "get", counted)
    monkeypatch.setattr(ObjectStore, "_page", listing)
    recent = RecentEnds()
    # Given 100 jobs, if I ask for a page of 40, I expect 40 ends and 41 names, however many follow.
    first = listed(backend, 40, FIRST_ENDED, ends=recent)
    assert [one.id for one in first.jobs] == [f"job-{number:03d}" for number in range(99, 59, -1)]
    assert (len(read), listings) == (40, [41])
    # If I ask again, I expect no end to be read.
    assert listed(backend, 40, FIRST_ENDED, ends=recent) == first and len(read) == 40
    # The pages that follow have the others, and the last one says that it is.
    second = listed(backend, 40, first.cursor, ends=recent)
    third = listed(backend, 40, second.cursor, ends=recent)
    assert (len(second.jobs), len(third.jobs), third.cursor) == (40, 20, "")
    assert {one.id for one in (*first.jobs, *second.jobs, *third.jobs)} == {f"job-{n:03d}" for n in range(100)}


def test_a_page_that_is_just_full_is_the_last_one(backend: Backend) -> None:
    for number in range(4):
        end(backend.store, number, owner="ann" if number % 2 else "bob")
    assert listed(backend, 4, FIRST_ENDED).cursor == ""
    assert [one.id for one in listed(backend, 2, FIRST_ENDED, "ann").jobs] == ["job-003", "job-001"]


def test_an_end_of_a_job_that_was_made_again_is_another(backend: Backend) -> None:
    recent = RecentEnds()
    end(backend.store, 7)
    ((key, id, run, _),) = index.ended(backend.store)
    assert recent.of(backend, (id, run), key) is not None
    backend.store.delete(key)
    backend.store.delete(JobKeys(id).end)
    assert listed(backend, 4, FIRST_ENDED, ends=recent).jobs == []


def test_a_record_that_was_damaged_hides_no_other_job(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    # Given jobs that run and jobs that have ended, one of each with a record that somebody overwrote,
    for id in ("open-bad", "open-good"):
        submit(backend, spec_of(id))
    backend.ledger.redis.hset(backend.ledger.keys.job("open-bad")[0], "ok", "many")
    end(backend.store, 1)
    end(backend.store, 2)
    backend.store.put(JobKeys("job-001").end, b"{")

    # I expect every list to have the others, and a word on those.
    good = ["open-good", "job-002"]
    assert sorted(one.id for one in listed(backend, 10).jobs) == sorted(good)
    assert sorted(one.id for one in page(backend, 10)) == sorted(good)
    ids = [*active_jobs(backend.store), "job-001", "job-002"]
    assert sorted(one.id for one in list_jobs(backend, ids)) == sorted(good)
    assert "open-bad is left out of the list" in caplog.text
    assert "job-001 is left out of the list" in caplog.text
