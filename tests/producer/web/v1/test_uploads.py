"""Uploads that nothing used go after a week; whatever a job or a schedule may need stays."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import httpx2
import pytest

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Source
from contract.jobs.unused import expire_uploads
from contract.keys.bucket import INDEX, UPLOADS
from contract.keys.uploads import upload_prefix, uploads_of
from contract.settings import Settings
from producer import Client
from tests.producer.web.v1.test_jobs import body
from tests.serving import Api
from worker.control.clean import clean
from worker.sources.lister import lister

DAY = 86_400.0


def upload(ann: httpx2.Client, *names: str, into: str | None = None) -> str:
    """Upload files; return the id."""
    asked = {"files": list(names or ("1.jpg", "2.jpg"))} | ({"upload": into} if into else {})
    answer = ann.post("/v1/uploads", json=asked)
    assert answer.status_code == 201, answer.text
    for file in answer.json()["files"]:
        assert httpx2.put(file["url"], content=b"x" * 10).status_code == 200
    return str(answer.json()["id"])


def left(store: ObjectStore) -> set[str]:
    """Return the ids of uploads that have files."""
    return {entry.key.split("/")[2] for entry in store.list(UPLOADS)}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it be eight days later from now on."""
    ahead = time.time
    monkeypatch.setattr(time, "time", lambda: ahead() + 8 * DAY)


def test_what_something_may_need_stays(
    api: Api, model: str, backend: Backend, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = api.store
    with api.client("jobs") as ann:
        # Given uploads that a job which has not ended, a schedule and a manifest elsewhere name, and two more of which
        # one was continued after its job was submitted,
        used = {name: upload(ann) for name in ("job", "schedule", "manifest", "continued")}
        for name in ("job", "continued"):
            sent = ann.post("/v1/jobs", json=body(store, model, source=f"upload:{used[name]}", job=name))
            assert sent.status_code == 202, sent.text
        upload(ann, "3.jpg", into=used["continued"])
        made = {"name": "monthly", "cron": "0 2 1 * *", "job": body(store, model, source=f"upload:{used['schedule']}")}
        assert ann.post("/v1/schedules", json=made).status_code == 201
        uri = f"s3://{store.bucket}/{upload_prefix('ann', used['manifest'])}1.jpg"
        store.put("lists/all.jsonl", f'{{"uri": "{uri}"}}\n'.encode())
        listed = lister(store, Source(kind="manifest", uri=f"s3://{store.bucket}/lists/all.jsonl", label="all.jsonl"))
        assert [item.uri for item in listed.items()] == [uri]
        idle = upload(ann)
    # if a week has passed, I expect the other one to go, and no other ever.
    with closing(Client(settings)) as client:
        assert list(client.gc()) == []
        ahead = time.time
        monkeypatch.setattr(time, "time", lambda: ahead() + 8 * DAY)
        (would,) = client.gc(dry_run=True)
        assert (would.what, would.job, would.objects, would.bytes) == ("unused upload", idle, 2, 20)
        assert idle in left(store)
        assert list(client.gc()) == [would]
        assert left(store) == set(used.values())
        monkeypatch.setattr(time, "time", lambda: ahead() + 800 * DAY)
        assert list(client.gc()) == []
    assert left(store) == set(used.values())
    assert not [entry.key for entry in store.list(INDEX) if idle in entry.key]


@pytest.mark.usefixtures("later")
def test_the_controller_deletes_them_by_itself(api: Api, backend: Backend, settings: Settings) -> None:
    with api.client("jobs") as ann:
        upload(ann)
    clean(backend, settings.model_copy(update={"keep_uploads_days": 0.0}))
    assert len(left(api.store)) == 1
    clean(backend, settings)
    assert left(api.store) == set()


@pytest.mark.usefixtures("later")
def test_what_lies_below_a_prefix_that_is_named_stays(api: Api, model: str, backend: Backend) -> None:
    # Given a schedule of all uploads of an owner, and one that came after it was added,
    with api.client("jobs") as ann:
        first = upload(ann)
        prefix = f"s3://{api.store.bucket}/{uploads_of('ann')}"
        made = {"name": "monthly", "cron": "0 2 1 * *", "job": body(api.store, model, source=prefix)}
        assert ann.post("/v1/schedules", json=made).status_code == 201
        upload(ann)
        assert list(expire_uploads(api.store, 7.0)) == []
        assert ann.delete("/v1/schedules/monthly").status_code == 204
    # Once the schedule is gone, I expect the one that it never came to to go.
    assert len(list(expire_uploads(api.store, 7.0))) == 1
    assert left(api.store) == {first}


@pytest.mark.usefixtures("later")
def test_a_job_that_is_submitted_during_a_deletion_is_told(
    api: Api, model: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    with api.client("jobs") as ann:
        id = upload(ann)
        delete_all = backend.store.delete_all

        def meanwhile(found: Iterable[str]) -> None:
            wanted = list(found)
            delete_all(wanted[:1])
            answers.append(ann.post("/v1/jobs", json=body(api.store, model, source=f"upload:{id}", job="late")))
            answers.append(ann.post("/v1/uploads", json={"files": ["3.jpg"], "upload": id}))
            delete_all(wanted[1:])

        monkeypatch.setattr(backend.store, "delete_all", meanwhile)
        assert len(list(expire_uploads(backend.store, 7.0))) == 1
        # I expect a sentence while half of it is gone, another once all is, and no job.
        for answer in answers:
            assert answer.status_code == 404 and "is being deleted" in answer.json()["detail"], answer.text
        after = ann.post("/v1/jobs", json=body(api.store, model, source=f"upload:{id}"))
        assert after.status_code == 404 and "No file was uploaded" in after.json()["detail"]
        assert ann.get("/v1/jobs/late").status_code == 404


def test_an_upload_that_its_owner_deletes_leaves_nothing(api: Api, model: str) -> None:
    with api.client("jobs") as ann:
        for source in (True, False):
            id = upload(ann)
            if source:
                ann.post("/v1/jobs", json=body(api.store, model, source=f"upload:{id}"))
            assert ann.delete(f"/v1/uploads/{id}").status_code == 204
            assert not [entry.key for entry in api.store.list("") if id in entry.key and "spec" not in entry.key]


def test_a_redis_that_is_wiped_changes_nothing(
    api: Api, model: str, backend: Backend, ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api.client("jobs") as ann:
        id = upload(ann)
        assert ann.post("/v1/jobs", json=body(api.store, model, source=f"upload:{id}")).status_code == 202
    for key in list(ledger.redis.scan_iter(f"{ledger.keys.namespace}:*")):
        ledger.redis.delete(key)
    ahead = time.time
    monkeypatch.setattr(time, "time", lambda: ahead() + 8 * DAY)
    clean(backend, settings)
    assert left(api.store) == {id}
