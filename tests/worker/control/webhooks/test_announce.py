"""What happened becomes one message to each webhook, made of what the bucket says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs import lifecycle, retention
from contract.jobs.lifecycle import Backend
from contract.jobs.schedules import Schedule, Schedules, Tick
from contract.jobs.templates import Template
from contract.keys.jobs import JobKeys
from contract.keys.schedules import schedule_tick
from contract.keys.webhooks import WEBHOOK_NOTES, WEBHOOK_OF_ALL, webhook_end_note
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from contract.web.webhooks.notes import note_tick
from contract.web.webhooks.outbox import KEEP_DAYS, Outbox, Told
from tests.worker.control.webhooks.conftest import POLICY
from worker.control.webhooks.announce import Announcer

Ended = Callable[..., str]


def told(store: ObjectStore, hook: Endpoint) -> list[Told]:
    return Outbox(store).messages(hook.id, limit=100)


def notes(store: ObjectStore) -> list[str]:
    return [entry.key for entry in store.list(WEBHOOK_NOTES)]


def test_the_end_of_a_job_is_one_message(backend: Backend, hook: Endpoint, ended: Ended) -> None:
    store = backend.store
    ended("animals", hook.id, ok=7, total=8, errors=1, error_codes={"truncated": 1}, labels={"cat": 7})
    assert Announcer(store).round() == 1
    assert notes(store) == []
    (one,) = told(store, hook)
    assert (one.type, one.state) == ("job.succeeded", "waiting")
    data = json.loads(one.body)["data"]
    assert {"job": "animals", "state": "succeeded", "ok": 7, "total": 8, "run": 0}.items() <= data.items()
    assert data["error_codes"] == {"truncated": 1}
    assert "xyzzy" not in one.body

    # If the end is settled again, by whomever, I expect no second one.
    lifecycle.settle(backend, "animals")
    assert Announcer(store).round() == 0
    assert len(told(store, hook)) == 1
    assert notes(store) == []


def test_each_run_has_an_end_of_its_own(backend: Backend, hook: Endpoint, ended: Ended) -> None:
    ended("animals", hook.id, "canceled")
    lifecycle.reopen(backend, "animals")
    lifecycle.close(backend, "animals", "failed", "See https://host.test/a?signature=xyzzy for more.")
    assert Announcer(backend.store).round() == 2
    found = {one.type: json.loads(one.body)["data"] for one in told(backend.store, hook)}
    assert {kind: data["run"] for kind, data in found.items()} == {"job.canceled": 0, "job.failed": 1}
    assert found["job.failed"]["reason"] == "See https://host.test/a?… for more."


def test_a_job_without_a_webhook_tells_nobody(backend: Backend, hook: Endpoint, ended: Ended) -> None:
    ended("animals", None)
    assert notes(backend.store) == []

    # Unless there is a webhook of all: then it is told, and a job's own webhook too.
    everyone = Endpoints(backend.store).register("http://127.0.0.1:9/all", "", POLICY)
    backend.store.put(WEBHOOK_OF_ALL, everyone.id.encode())
    ended("others", None)
    ended("mine", hook.id)
    assert Announcer(backend.store).round() == 3
    assert sorted(json.loads(one.body)["data"]["job"] for one in told(backend.store, everyone)) == ["mine", "others"]
    assert [json.loads(one.body)["data"]["job"] for one in told(backend.store, hook)] == ["mine"]


def test_the_end_of_a_watchs_segment_is_one_of_the_watch(backend: Backend, hook: Endpoint, ended: Ended) -> None:
    from contract.jobs.specs import Source
    from worker.control.webhooks.announce import end_event

    id = ended("birds-20261126t083012000-000003", hook.id, ok=5)
    spec = lifecycle.read_spec(backend.store, id)
    watched = spec.model_copy(update={"source": Source(kind="watch", uri="s3://b/camera/", label="s3://b/camera/")})
    event = end_event(watched, lifecycle.status(backend, id), 0)
    assert event.type == "watch.segment_closed"
    assert {"watch": "birds", "segment": 3, "state": "succeeded"}.items() <= event.data.items()


def test_a_tick_that_starts_a_job_or_fails_is_told(store: ObjectStore, hook: Endpoint) -> None:
    at = datetime.now(UTC).isoformat()
    template = Template(spec={"kind": "classify", "webhook": hook.id})
    schedules = Schedules(store)
    schedules.put(
        Schedule(name="nightly", cron="0 2 * * *", timezone="UTC", created_at=at, since=at, template=template)
    )
    told_of = (("20261126t0200", "submitted"), ("20261127t0200", "failed"), ("20261128t0200", "skipped"))
    for stamp, state in told_of:
        tick = Tick.model_validate({"at": at, "state": state, "job": "nightly-1", "reason": "There is no model 'm'."})
        store.put(schedule_tick("nightly", stamp), tick.to_json())
        note_tick(store, "nightly", stamp, hook.id)
    Announcer(store).round()
    assert notes(store) == []
    found = {one.type: json.loads(one.body)["data"] for one in told(store, hook)}
    assert set(found) == {"schedule.started", "schedule.failed"}
    assert found["schedule.started"]["job"] == "nightly-1"
    assert found["schedule.failed"]["reason"] == "There is no model 'm'."


def test_a_note_alone_makes_nothing_up(backend: Backend, hook: Endpoint, ended: Ended) -> None:
    # Given notes of a job that runs, of none, and of what is no note, as somebody might write who may write notes,
    store = backend.store
    ended("animals", hook.id)
    lifecycle.reopen(backend, "animals")
    for note in ("job/animals/0001", "job/nobody/0000", "job/animals/x", "tick/none/20261126t0200", "junk"):
        store.put(f"{WEBHOOK_NOTES}{note}", b"")
    # I expect a message about the end that there is, and the notes gone.
    Announcer(store).round()
    assert [json.loads(one.body)["data"]["run"] for one in told(store, hook)] == [0]
    assert notes(store) == []


def test_an_end_is_told_whose_process_died_before_its_note(backend: Backend, hook: Endpoint, ended: Ended) -> None:
    # Given an end without a note, which a job was resumed from,
    store = backend.store
    ended("animals", hook.id)
    store.delete(webhook_end_note("animals", 0))
    lifecycle.reopen(backend, "animals")
    # I expect it to be told all the same.
    Announcer(store).round()
    assert [json.loads(one.body)["data"]["run"] for one in told(store, hook)] == [0]


def test_what_is_long_past_or_deleted_is_not_told(backend: Backend, hook: Endpoint, ended: Ended) -> None:
    store = backend.store
    ended("animals", hook.id)
    later = time.time() + (KEEP_DAYS + 1) * 86_400
    assert Announcer(store, clock=lambda: later).round() == 0
    assert notes(store) == []

    ended("gone", hook.id)
    retention.remove(backend, "gone")
    assert Announcer(store).round() == 0
    assert notes(store) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_what_cannot_be_read_waits_and_holds_up_nothing(
    backend: Backend, hook: Endpoint, ended: Ended, damaged: bool
) -> None:
    # Given the ends of two jobs, of which the first has a spec of a newer version, or one that somebody overwrote,
    store = backend.store
    ended("animals", hook.id)
    ended("zebras", hook.id)
    spec = json.loads(store.get(JobKeys("animals").spec))
    spec["spec"]["kind"] = "paint"
    store.put(JobKeys("animals").spec, b"{" if damaged else json.dumps(spec).encode())
    # I expect webhooks to be told of the second, and the first to wait.
    announcer = Announcer(store)
    assert announcer.round() == 1
    assert announcer.round() == 0
    assert notes(store) == [webhook_end_note("animals", 0)]


def test_a_disabled_webhook_gets_messages_that_can_be_sent_later(
    backend: Backend, hook: Endpoint, ended: Ended
) -> None:
    Endpoints(backend.store).disable(hook.id, "it answered 410")
    ended("animals", hook.id)
    Announcer(backend.store).round()
    (one,) = told(backend.store, hook)
    assert (one.state, one.attempts) == ("failed", 0)
    assert one.last is not None
    assert one.last.error == "it answered 410"
