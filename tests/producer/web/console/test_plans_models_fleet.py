"""Watches, schedules, models and workers in the console."""

from __future__ import annotations

import re
import time
from contextlib import closing

import pytest

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.keys.models import model_file, model_record
from contract.models.registry import Model, Registry, make_file
from contract.settings import Settings
from contract.watches.record import Watches
from contract.watches.state import WatchState, write_states
from contract.web.tokens import Tokens
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.test_jobs import submit
from tests.producer.web.v1.test_jobs import body
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
        part = "/console/parts/watches" if kind == "watches" else f"/console/{kind}"
        assert name in reader.get(part).text and name not in stranger.get(part).text
    # If I run the schedule by hand, I expect its job among the ticks, and ticks counted by their states.
    assert client.post("/console/schedules/nightly/run").status_code == 303
    page = client.get("/console/schedules/nightly").text
    assert "by hand" in page and "/console/jobs/nightly-" in page and "The last 1: 1 queued." in page


@pytest.mark.usefixtures("plans")
def test_a_watch_follows_its_segments(api: Api, browse: Browse, model: str, settings: Settings) -> None:
    # Given a watch whose controller reports a segment that runs, and one that was deleted,
    id = submit(api, model)
    with closing(Ledger(settings)) as ledger:
        watch = Watches(api.store).get("camera")
        now = time.time()
        state = WatchState(
            name="camera",
            stamp=watch.stamp,
            controller="c",
            at=now,
            every=1.0,
            swept_at=now,
            pending=3,
            planned=9,
            jobs=(id, "gone"),
        )
        write_states(ledger, [state])
    part = browse("review").get("/console/watches/camera/part").text
    assert f'href="/console/jobs/{id}"' in part and "gone" not in part and "<html" not in part
    assert browse("review", owner="bob").get("/console/watches/camera/part").status_code == 404


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
    record = Model.model_validate_json(store.get(model_record(model, 1)))
    record = record.model_copy(
        update={"files": (make_file("card.md", card),), "card": "card.md", "labels": (HOSTILE, "b")}
    )
    store.put(model_record(model, 1), record.to_json())
    store.put(model_file(model, 1, "card.md"), card)
    client = browse("jobs")
    assert f"/console/models/{model}@1" in client.get("/console/models").text
    page = client.get(f"/console/models/{model}@1").text
    assert "# Card &lt;img" in page and HOSTILE not in page
    # if I set an alias, I expect it to stand for the version at once,
    answer = client.post(f"/console/models/{model}/aliases", data={"alias": "live", "version": "1"})
    assert answer.headers["Location"] == f"/console/models/{model}@1"
    assert "@live" in client.get(f"/console/models/{model}@live").text
    assert f"/{model}/aliases/live/remove" in client.get(f"/console/models/{model}").text
    assert client.post(f"/console/models/{model}/aliases/live/remove").status_code == 303
    assert client.get(f"/console/models/{model}@live").status_code == 404
    # and a sentence for what cannot be one, and for what is no file to show.
    wrong = client.post(f"/console/models/{model}/aliases", data={"alias": "No", "version": "1"})
    assert wrong.status_code == 422 and "is not an alias" in wrong.text
    assert client.get(f"/console/models/{model}@1/files/card.md").status_code == 415
    assert client.get(f"/console/models/{model}@1/files/weights.safetensors").status_code == 404
    assert (
        browse("review").post(f"/console/models/{model}/aliases", data={"alias": "a", "version": "1"}).status_code
        == 403
    )


def test_only_the_owner_of_a_model_is_shown_what_moves_its_aliases(
    browse: Browse, model: str, store: ObjectStore
) -> None:
    Registry(store).own(model, "ann")
    place = f"/console/models/{model}"
    for who, owner, shown in (
        ("jobs", "ann", True),
        ("review", "ann", False),
        ("jobs", "bob", False),
        ("admin", "root", True),
    ):
        client = browse(who, owner=owner)
        assert ("aliases" in client.get(place).text) == shown, (who, owner)
        answer = client.post(f"{place}/aliases", data={"alias": "live", "version": "1"})
        assert answer.status_code == (303 if shown else 403), answer.text
    assert browse("jobs", owner="bob").post(f"{place}/aliases/live/remove").status_code == 403


def test_tokens_are_listed_for_operators_without_what_lets_anybody_in(api: Api, browse: Browse) -> None:
    api.token("infer", owner="<b>eve</b>", rate=2.5, lives=60)
    client = browse("admin", owner="root")
    page = client.get("/console/tokens").text
    assert "&lt;b&gt;eve" in page and ">2.5</td>" in page and "this one" in page and "when revoked" in page
    assert not re.search(r"imk_[0-9a-f]{12}_", page)
    for token in Tokens(api.store).all():
        assert token.sha256 not in page and token.id in page
    assert browse("jobs").get("/console/tokens").status_code == 403


def test_workers_are_for_operators(browse: Browse) -> None:
    client = browse("admin")
    assert "Queues" in client.get("/console/workers").text and "Queues" in client.get("/console/workers/part").text
    assert "/console/workers" in client.get("/console/jobs").text
    unknown = client.post("/console/workers/drain", data={"worker": "nobody"})
    assert unknown.status_code == 422 and "worker" in unknown.text
    other = browse("jobs")
    assert other.get("/console/workers").status_code == 403
    assert "/console/workers" not in other.get("/console/jobs").text
