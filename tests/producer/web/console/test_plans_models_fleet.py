"""Watches, schedules, models and workers in the console."""

from __future__ import annotations

import pytest

from contract import keys
from contract.backend.objects import ObjectStore
from contract.models.registry import Model, make_file
from tests.producer.web.console.conftest import Browse
from tests.producer.web.test_jobs import body
from tests.serving import Api

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def plans(api: Api, model: str) -> None:
    """A schedule and a watch of ann's."""
    with api.client("jobs") as client:
        schedule = {"name": "nightly", "cron": "0 2 * * *", "job": body(api.store, model)}
        assert client.post("/v1/schedules", json=schedule).status_code == 201
        watch = {"name": "camera", "source": f"s3://{api.store.bucket}/photos/", "model": model, "every": "1s"}
        assert client.post("/v1/watches", json=watch).status_code == 201


@pytest.mark.usefixtures("plans")
def test_a_schedule_and_a_watch_are_shown_and_steered_by_their_owner(browse: Browse) -> None:
    client, reader, stranger = browse("jobs"), browse("review"), browse("jobs", owner="bob")
    for kind, name in (("schedules", "nightly"), ("watches", "camera")):
        place = f"/console/{kind}/{name}"
        assert place in client.get(f"/console/{kind}").text
        assert f"{place}/pause" in client.get(place).text and f"{place}/pause" not in reader.get(place).text
        assert client.post(f"{place}/pause").headers["Location"] == place
        assert f"{place}/unpause" in client.get(place).text
        assert client.post(f"{place}/unpause").status_code == 303
        assert client.post(f"{place}/explode").status_code == 404
        assert reader.post(f"{place}/pause").status_code == 403
        assert place not in stranger.get(f"/console/{kind}").text
        assert stranger.get(place).status_code == stranger.post(f"{place}/pause").status_code == 404
    # If I run the schedule by hand, I expect its job among the ticks.
    assert client.post("/console/schedules/nightly/run").status_code == 303
    page = client.get("/console/schedules/nightly").text
    assert "by hand" in page and "/console/jobs/nightly-" in page


def test_without_any_the_pages_say_how_to_make_one(browse: Browse) -> None:
    client = browse("admin")
    for kind, command in (
        ("schedules", "schedule add"),
        ("watches", "watch add"),
        ("models", "train"),
        ("workers", "up"),
    ):
        assert f"imagemill {command}" in client.get(f"/console/{kind}").text, kind


def test_a_model_has_a_card_and_its_owner_points_aliases_to_it(
    api: Api, browse: Browse, model: str, store: ObjectStore
) -> None:
    # Given a model whose card and labels are markup,
    card = f"# Card {HOSTILE}".encode()
    record = Model.model_validate_json(store.get(keys.model_record(model, 1)))
    record = record.model_copy(
        update={"files": (make_file("card.md", card),), "card": "card.md", "labels": (HOSTILE, "b")}
    )
    store.put(keys.model_record(model, 1), record.to_json())
    store.put(keys.model_file(model, 1, "card.md"), card)
    client = browse("jobs")
    assert f"/console/models/{model}@1" in client.get("/console/models").text
    page = client.get(f"/console/models/{model}@1").text
    assert "# Card &lt;img" in page and HOSTILE not in page
    # if I set an alias, I expect it to stand for the version at once,
    answer = client.post(f"/console/models/{model}/aliases", data={"alias": "live", "version": "1"})
    assert answer.headers["Location"] == f"/console/models/{model}@1"
    assert "@live" in client.get(f"/console/models/{model}@live").text
    # and a sentence for what cannot be one, and for what is no file to show.
    wrong = client.post(f"/console/models/{model}/aliases", data={"alias": "No", "version": "1"})
    assert wrong.status_code == 422 and "is not an alias" in wrong.text
    assert client.get(f"/console/models/{model}@1/files/card.md").status_code == 415
    assert client.get(f"/console/models/{model}@1/files/weights.safetensors").status_code == 404
    assert (
        browse("review").post(f"/console/models/{model}/aliases", data={"alias": "a", "version": "1"}).status_code
        == 403
    )


def test_workers_are_for_operators(browse: Browse) -> None:
    client = browse("admin")
    assert "Queues" in client.get("/console/workers").text and "Queues" in client.get("/console/workers/part").text
    assert "/console/workers" in client.get("/console/jobs").text
    unknown = client.post("/console/workers/drain", data={"worker": "nobody"})
    assert unknown.status_code == 422 and "worker" in unknown.text
    other = browse("jobs")
    assert other.get("/console/workers").status_code == 403
    assert "/console/workers" not in other.get("/console/jobs").text
