"""Watches and schedules in the console."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from contract.backend.ledger import Ledger
from contract.settings import Settings
from contract.watches.record import Watches
from contract.watches.state import WatchState, write_states
from tests.producer.web.console.conftest import Browse
from tests.producer.web.console.jobs.test_listing import submit
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


def test_the_next_ticks_are_told_by_the_clock_of_the_schedule(api: Api, browse: Browse, model: str) -> None:
    schedule = {"name": "early", "cron": "0 2 * * *", "timezone": "Asia/Kathmandu", "job": body(api.store, model)}
    with api.client("jobs") as client:
        assert client.post("/v1/schedules", json=schedule).status_code == 201
    page = browse("jobs").get("/console/schedules/early").text
    # Two in the morning there is 20:15 in UTC, all year.
    assert page.count(", 02:00</span>") == 3 and page.count(" 20:15:00 UTC") == 3


@pytest.mark.usefixtures("plans")
def test_a_command_in_the_reason_of_a_watch_is_set_as_one(
    api: Api, browse: Browse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a watch of which no controller has reported for long, and which was not added just now,
    monkeypatch.setattr("producer.jobs.watches._SILENT_SECONDS", 0.0)
    with closing(Ledger(settings)) as ledger:
        watch, then = Watches(api.store).get("camera"), time.time() - 3600
        stale = WatchState(name="camera", stamp=watch.stamp, controller="c", at=then, every=1.0, swept_at=then)
        write_states(ledger, [stale])
    client = browse("jobs")
    for path in ("watches", "watches/camera"):
        page = client.get(f"/console/{path}").text
        assert "unattended" in page and "<code>imagemill doctor</code>" in page
