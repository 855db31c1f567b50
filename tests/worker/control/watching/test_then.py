"""The end of each segment starts the command of a schedule once, whoever dies or comes second."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from contract.errors import RedisUnavailable, StoreUnavailable
from contract.jobs import lifecycle, retention
from contract.jobs.lifecycle import read_spec
from contract.jobs.schedules import Schedule, Schedules, Tick
from contract.jobs.templates import Template
from contract.keys.bucket import JOBS
from contract.keys.watches import watch_then
from contract.keys.webhooks import WEBHOOK_OF_ALL
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints
from contract.web.webhooks.outbox import Outbox
from tests.worker.control.watching.conftest import Camera
from worker.control.watching import then
from worker.control.watching.then import Then, job_after
from worker.control.webhooks.announce import Announcer

MakeCamera = Callable[..., Camera]


@pytest.fixture
def camera(make_camera: MakeCamera) -> Camera:
    """A watch with a closed segment and an open one, and a schedule that evaluates what was labelled."""
    camera = make_camera()
    camera.watch = camera.watch.model_copy(update={"then": "nightly"})
    controller = camera.controller()
    for name in ("a.jpg", "b.jpg"):
        camera.put(name)
        controller.round()
        camera.now += 4000
    Schedules(camera.backend.store).add(
        Schedule(
            name="nightly",
            cron="0 2 * * *",
            timezone="UTC",
            paused=True,
            created_at="2026-11-26T08:30:12.345Z",
            since="2026-11-26T08:30:12.345Z",
            owner="ann",
            template=Template(
                spec={
                    "kind": "evaluate",
                    "model": "parity",
                    "source": {"kind": "segment", "uri": "camera@newest", "label": "watch:camera@newest"},
                }
            ),
        )
    )
    return camera


def look(camera: Camera) -> None:
    """What a controller does that has just started."""
    Then(camera.backend, camera.watch, lambda: camera.now).look()


def started(camera: Camera) -> list[str]:
    """The jobs that are no segments."""
    store = camera.backend.store
    ids = {entry.key.split("/")[1] for entry in store.list(JOBS) if entry.key.endswith("/spec.json")}
    return sorted(ids - set(camera.segments()))


def decided(camera: Camera, number: int = 0) -> Tick:
    return Tick.model_validate_json(camera.backend.store.get(watch_then(camera.watch.root, number)))


def test_nothing_starts_before_a_segment_has_ended(camera: Camera) -> None:
    look(camera)
    assert started(camera) == []


def test_a_segment_that_has_succeeded_starts_the_command_on_what_it_labelled(camera: Camera) -> None:
    first, second = camera.segments()
    one = Then(camera.backend, camera.watch, lambda: camera.now)
    one.look()
    lifecycle.close(camera.backend, first, "succeeded")

    one.look()
    one.look()
    look(camera)

    (job,) = started(camera)
    spec = read_spec(camera.backend.store, job)
    assert (job, spec.kind, spec.source.kind, spec.source.uri) == (
        job_after("nightly", first),
        "evaluate",
        "job",
        first,
    )
    assert lifecycle.status(camera.backend, job).owner == "ann"
    # It is in the history of the schedule, and no tick of it.
    (tick,) = Schedules(camera.backend.store).history("nightly", 10)
    assert (tick.state, tick.job, tick.after, tick.manual) == ("submitted", job, first, False)
    assert Schedules(camera.backend.store).last("nightly") is None
    # The next segment starts another one.
    lifecycle.close(camera.backend, second, "succeeded")
    one.look()
    assert started(camera) == sorted([job, job_after("nightly", second)])


@pytest.mark.parametrize(
    "dies_at", ["then/000000.json", "/spec.json", "active", "redis", "ticks/", "then/000000.begun"]
)
def test_a_controller_that_dies_at_any_step(camera: Camera, dies_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = camera.segments()
    lifecycle.close(camera.backend, first, "succeeded")
    store, ledger = camera.backend.store, camera.backend.ledger
    put_if_absent, put = store.put_if_absent, store.put
    died = []

    def write(how: Callable[..., Any]) -> Callable[..., Any]:
        def call(key: str, data: bytes, **more: Any) -> Any:
            if dies_at in key:
                died.append(key)
                raise StoreUnavailable("it died here")
            return how(key, data, **more)

        return call

    def tell(*_: Any, **__: Any) -> None:
        died.append("redis")
        raise RedisUnavailable("it died here")

    standing = Then(camera.backend, camera.watch, lambda: camera.now)
    with monkeypatch.context() as patch:
        patch.setattr(store, "put_if_absent", write(put_if_absent))
        patch.setattr(store, "put", write(put))
        if dies_at == "redis":
            patch.setattr(ledger, "create", tell)
        with pytest.raises((StoreUnavailable, RedisUnavailable)):
            standing.look()
    assert died

    # If another one takes over, and the same one goes on a second later, I expect one job and one entry.
    camera.now += 1
    look(camera)
    standing.look()
    assert started(camera) == [job_after("nightly", first)]
    assert lifecycle.status(camera.backend, job_after("nightly", first)).state == "queued"
    assert len(Schedules(store).history("nightly", 10)) == 1


def test_a_job_that_was_deleted_is_not_started_again(camera: Camera) -> None:
    first, _ = camera.segments()
    lifecycle.close(camera.backend, first, "succeeded")
    look(camera)
    job = job_after("nightly", first)
    lifecycle.cancel(camera.backend, job)
    retention.remove(camera.backend, job)
    look(camera)
    assert started(camera) == []


@pytest.mark.parametrize("end", ["failed", "canceled", "deleted"])
def test_a_segment_without_success_starts_nothing_and_says_why(camera: Camera, end: str) -> None:
    first, _ = camera.segments()
    lifecycle.close(camera.backend, first, "failed" if end == "failed" else "canceled")
    if end == "deleted":
        retention.remove(camera.backend, first)
    look(camera)
    assert started(camera) == []
    (tick,) = Schedules(camera.backend.store).history("nightly", 10)
    assert tick.state == "skipped" and tick.reason is not None
    assert tick.reason.startswith(f"The segment {first} ") and end in tick.reason


def test_a_webhook_is_told_of_the_segment_and_of_what_its_end_starts(camera: Camera) -> None:
    # Given a webhook of a watch's segments and of the schedule that their ends start,
    store, (first, _) = camera.backend.store, camera.segments()
    hook = Endpoints(store).register("http://127.0.0.1:9/", "ann", AddressPolicy("127.0.0.1", "1-65535"))
    store.put(WEBHOOK_OF_ALL, hook.id.encode())
    lifecycle.close(camera.backend, first, "succeeded", ok=1, done=1, total=1)
    look(camera)
    look(camera)
    announcer = Announcer(store, lambda: camera.now)

    # if all of it is announced, again and again, I expect one message of each.
    for _ in range(2):
        announcer.round()
    told = [json.loads(one.body) for one in Outbox(store).messages(hook.id, limit=9)]
    found = {one["type"]: one["data"] for one in told}
    assert len(told) == 2
    assert {"watch": "camera", "segment": 0, "job": first, "ok": 1}.items() <= found["watch.segment_closed"].items()
    assert found["schedule.started"]["after"] == first
    assert [found["schedule.started"]["job"]] == started(camera)


def test_a_schedule_that_is_gone_is_no_harm_to_the_watch(camera: Camera) -> None:
    first, _ = camera.segments()
    Schedules(camera.backend.store).remove("nightly", "ann")
    lifecycle.close(camera.backend, first, "succeeded")
    look(camera)
    assert started(camera) == []
    assert decided(camera).state == "failed" and "There is no schedule 'nightly'" in str(decided(camera).reason)
    assert list(camera.backend.store.list("schedules/")) == []


def test_a_job_of_another_by_that_name_is_not_taken_for_it(camera: Camera) -> None:
    first, second = camera.segments()
    job = job_after("nightly", first)
    lifecycle.close(camera.backend, first, "succeeded")
    output = f"s3://{camera.backend.store.bucket}/jobs/{job}/out/"
    spec = read_spec(camera.backend.store, second).model_copy(update={"id": job, "output": output})
    lifecycle.submit(camera.backend, spec)
    look(camera)
    assert f"The id {job} belongs to another job" in str(decided(camera).reason)
    look(camera)
    assert Schedules(camera.backend.store).history("nightly", 10)[0].state == "failed"


def test_while_a_server_is_away_it_waits_and_the_watch_goes_on(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*_: Any, **__: Any) -> None:
        raise RedisUnavailable("it is away")

    first, _ = camera.segments()
    lifecycle.close(camera.backend, first, "succeeded")
    one = Then(camera.backend, camera.watch, lambda: camera.now)
    monkeypatch.setattr(then, "_LOOK_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(camera.backend.ledger, "create", tell)
        one.round()
    one.round()
    assert lifecycle.status(camera.backend, job_after("nightly", first)).state == "queued"
