"""Annotations of Label Studio over HTTP: its webhook, and an export that a client sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs.reviews import verdicts
from contract.settings import Settings
from producer import HttpClient
from producer.web.console.reviews import queues
from tests.producer.web.console.jobs.test_listing import submit
from tests.producer.web.console.reviews.test_images import row
from tests.producer.web.console.rows import commit_rows, end
from tests.serving import Api


@pytest.fixture
def job(api: Api, model: str, settings: Settings, store: ObjectStore) -> str:
    id = submit(api, model)
    commit_rows(store, id, [row("a", 0.99), row("b", 0.51), row("c", 0.7)])
    end(settings, store, id, ok=3, done=3, total=3, model="shapes@1")
    return id


def event(action: str, key: str, label: str, at: str, id: int = 17) -> dict[str, Any]:
    """What Label Studio 1.13 sends, but for fields of the project and the task that say nothing here."""
    result = {"value": {"choices": [label]}, "from_name": "label", "to_name": "image", "type": "choices"}
    annotation = {
        "id": id,
        "result": [result],
        "completed_by": 3,
        "task": 5,
        "was_cancelled": False,
        "created_at": "2026-11-26T10:00:00.000000Z",
        "updated_at": at,
    }
    task = {"id": 5, "data": {"image": f"https://store/{key}?signed", "key": key}, "project": 83}
    return {"action": action, "annotation": annotation, "task": task, "project": {"id": 83, "title": "<b>shapes</b>"}}


def test_its_webhook_gives_changes_and_takes_back(api: Api, job: str) -> None:
    place = f"/v1/jobs/{job}/reviews/label-studio"
    with api.client("review") as client:

        def send(body: object) -> dict[str, Any]:
            answer = client.post(place, json=body)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        def labels() -> dict[str, str]:
            text = client.get(f"/v1/jobs/{job}/results", params={"status": "reviewed"}).text
            return {one["key"]: one["label"] for one in map(json.loads, text.splitlines())}

        assert send(event("ANNOTATION_CREATED", "a", "square", "2026-11-26T10:00:01Z"))["added"] == 1
        assert send(event("ANNOTATION_CREATED", "b", "disc", "2026-11-26T10:00:02Z", id=18))["added"] == 1
        # Delivered twice, it is one.
        assert send(event("ANNOTATION_CREATED", "b", "disc", "2026-11-26T10:00:02Z", id=18))["known"] == 1
        assert labels() == {"a": "square", "b": "disc"}
        changed = send(event("ANNOTATION_UPDATED", "a", "star", "2026-11-26T10:00:03Z"))
        assert (changed["added"], changed["withdrawn"]) == (1, 1) and labels()["a"] == "star"
        gone = send({"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 18}], "project": {"id": 83}})
        assert gone["withdrawn"] == 1 and labels() == {"a": "star"}
        # Whatever arrives late is older than what stands.
        assert send(event("ANNOTATION_UPDATED", "b", "disc", "2026-11-26T10:00:05Z", id=18))["known"] == 1
        empty = event("ANNOTATION_UPDATED", "c", "disc", "2026-11-26T10:00:07Z", id=20)
        empty["annotation"]["result"] = []
        assert send(empty)["unclear"] == 1
        assert send(event("ANNOTATION_CREATED", "c", "disc", "2026-11-26T10:00:06Z", id=20))["known"] == 1
        assert labels() == {"a": "star"}
        # What it also sends is no mistake, and an image of another job is named.
        assert send({"action": "PROJECT_UPDATED", "project": {"id": 83}})["annotations"] == 0
        other = send(event("ANNOTATION_CREATED", "elsewhere", "disc", "2026-11-26T10:00:04Z", id=19))
        assert (other["unknown"], other["unknown_named"]) == (1, ["elsewhere"])
        assert client.get(f"/v1/jobs/{job}/reviews").json()["reviewers"] == [{"name": "label-studio:3", "images": 1}]


def test_what_was_read_once_is_not_read_again_and_an_import_counts_at_once(
    api: Api, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job of which a server keeps the listing of its verdicts, and two of these,
    monkeypatch.setattr(queues, "AT_ONCE", 0.01)
    reads, read = list[object](), verdicts.read
    place = f"/v1/jobs/{job}/reviews"
    with api.client("review") as client:

        def images() -> int:
            return int(client.get(place).json()["images"])

        def say(key: str, id: int) -> None:
            body = event("ANNOTATION_CREATED", key, "disc", "2026-11-26T10:00:01Z", id=id)
            assert client.post(f"{place}/label-studio", json=body).json()["added"] == 1

        say("a", 17)
        say("b", 18)
        monkeypatch.setattr(verdicts, "read", lambda *args: reads.append(args) or read(*args))
        # I expect each to be read once, however often I ask, and another one to count as soon as it is imported.
        assert [images(), images(), images()] == [2, 2, 2] and len(reads) == 2
        say("c", 19)
        assert images() == 3 and len(reads) == 3
        gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 17}]}
        assert client.post(f"{place}/label-studio", json=gone).json()["withdrawn"] == 1
        assert images() == 2
        say("a", 21)
        # If they are more than a server holds, I expect the same.
        monkeypatch.setattr(queues, "MOST_VERDICTS", 2)
        assert images() == 3


def test_strangers_and_nonsense_write_nothing(api: Api, job: str, store: ObjectStore) -> None:
    place = f"/v1/jobs/{job}/reviews/label-studio"
    good = event("ANNOTATION_CREATED", "a", "square", "2026-11-26T10:00:01Z")
    for scopes, owner, status in ((("infer",), "ann", 403), (("review",), "bob", 404)):
        with api.client(*scopes, owner=owner) as client:
            assert client.post(place, json=good).status_code == status
    with api.client("review") as client:
        for body in ({}, {"action": 3}, [3], "x", {"action": "ANNOTATION_CREATED"}, None):
            answer = client.post(place, json=body)
            assert answer.status_code == 422, answer.text
            assert answer.headers["Content-Type"].startswith("application/problem+json")
        deep = b'[{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]"
        answer = client.post(place, content=deep, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), answer.text
        hostile = event("ANNOTATION_CREATED", "a", "\ud800", "2026-11-26T10:00:01Z")
        answer = client.post(place, content=json.dumps(hostile), headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 422) and (answer.status_code == 422 or answer.json()["unclear"] == 1)
        assert client.post(place, content=b" " * (2**20 + 1)).status_code == 413
    assert not list(store.list(f"jobs/{job}/reviews/"))


def test_a_client_sends_an_export_in_pieces(
    api: Api, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.http_client._PIECE_BYTES", 400)
    file = tmp_path / "project-83.json"
    made = [event("x", key, "star", "2026-11-26T10:00:01Z", id=n) for n, key in enumerate(("a", "b", "c", "d"))]
    file.write_text(json.dumps([{**one["task"], "annotations": [one["annotation"]]} for one in made]))
    with HttpClient(api.url, api.token("review")) as client:
        found = client.import_reviews(job, file)
        assert (found.annotations, found.added, found.unknown_named) == (4, 3, ("d",))
        assert {one["key"] for one in client.reviewed(job)} == {"a", "b", "c"}
        assert client.reviews(job).images == 3
