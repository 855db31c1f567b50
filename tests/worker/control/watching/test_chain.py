"""Each object is planned once, whoever dies, stands still or comes second."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from contract.errors import RedisUnavailable, StoreUnavailable, UnknownWatch
from contract.jobs import lifecycle
from contract.jobs.lifecycle import read_plan
from contract.keys.jobs import JobKeys
from contract.watches.record import Watches
from contract.watches.segments import read_segment
from tests.worker.control.watching.conftest import Camera
from worker.control.plan_log import PlanLog
from worker.control.reconcile import tick
from worker.control.watching import chain
from worker.control.watching.retire import leftovers, retire

MakeCamera = Callable[..., Camera]


def test_a_shard_is_written_to_the_bucket_and_queued_at_once(camera: Camera) -> None:
    camera.put("a.jpg", "b.jpg")
    controller = camera.controller()

    assert controller.round() == "planned"

    (job,) = camera.segments()
    assert camera.planned() == {"a.jpg": 1, "b.jpg": 1}
    status = camera.backend.ledger.status(job)
    assert status is not None
    assert (status.state, status.shards.total) == ("planning", 1)
    ((item, _),) = camera.shards(job)
    assert item.modified is not None and item.planned_at == camera.now
    assert controller.chain.planned == 2


def test_no_images_no_job(camera: Camera) -> None:
    camera.put("notes.txt")
    assert camera.controller().round() == "planned"
    assert camera.segments() == []


def test_a_new_controller_plans_nothing_again(camera: Camera) -> None:
    camera.put("a.jpg", "b.jpg")
    camera.controller().round()
    camera.put("c.jpg")

    camera.controller().round()

    assert camera.planned() == {"a.jpg": 1, "b.jpg": 1, "c.jpg": 1}
    assert len(camera.segments()) == 1


def test_a_segment_closes_when_it_is_full_and_the_next_one_goes_on(make_camera: MakeCamera) -> None:
    camera = make_camera(shard_size=2)
    camera.put(*(f"{n}.jpg" for n in range(4)))
    controller = camera.controller(watch_segment_images=4)
    controller.round()
    camera.put("4.jpg")
    controller.round()

    first, second = camera.segments()
    plan = read_plan(camera.backend.store, first)
    assert plan is not None and (plan.shards, plan.items) == (2, 4)
    status = camera.backend.ledger.status(first)
    assert status is not None and (status.state, status.total) == ("running", 4)
    assert read_plan(camera.backend.store, second) is None
    assert read_segment(camera.backend.store, camera.watch.root, 1).before == 4
    # A controller that starts now has seen what the closed segment holds.
    fresh = camera.controller()
    fresh.round()
    assert set(camera.planned().values()) == {1} and fresh.chain.planned == 5


def test_a_segment_closes_when_it_is_old_though_nothing_comes(camera: Camera) -> None:
    camera.put("a.jpg")
    controller = camera.controller()
    controller.round()
    camera.now += 3599
    controller.round()
    (job,) = camera.segments()
    assert read_plan(camera.backend.store, job) is None
    camera.now += 2
    controller.round()
    assert read_plan(camera.backend.store, job) is not None


def test_a_controller_that_stands_still_while_it_reads_a_log_that_another_completes(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a controller that opens a segment, and is stopped once it has read that nothing is planned in it,
    camera.put("a.jpg", "b.jpg")
    slow, other = (camera.controller(watch_segment_images=2) for _ in range(2))
    read = PlanLog

    def stopped(*of: Any, **how: Any) -> PlanLog:
        found = read(*of, **how)
        monkeypatch.setattr(chain, "PlanLog", read)
        for _ in range(2):
            other.round()
        return found

    monkeypatch.setattr(chain, "PlanLog", stopped)
    # if another one plans all and closes the segment meanwhile, I expect nothing to be planned again,
    slow.round()
    assert camera.planned() == {"a.jpg": 1, "b.jpg": 1}
    # and whoever starts now to know all of it.
    assert camera.controller().round() and camera.planned() == {"a.jpg": 1, "b.jpg": 1}


@pytest.mark.parametrize("dies_at", ["plan/shard-000001", "seen/", "_PLAN.json", "redis"])
def test_a_controller_that_dies_while_it_closes_a_segment(
    camera: Camera, dies_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a segment that is due, and a controller that dies at one of the steps that close it
    camera.put("a.jpg", "b.jpg")
    controller = camera.controller()
    controller.round()
    camera.now += 4000
    put, complete = camera.backend.store.put_if_absent, camera.backend.ledger.complete

    def write(key: str, data: bytes, **more: Any) -> bool:
        if dies_at in key:
            raise StoreUnavailable("it died here")
        return put(key, data, **more)

    def tell(*_: Any, **__: Any) -> None:
        raise RedisUnavailable("it died here")

    with monkeypatch.context() as patch:
        patch.setattr(camera.backend.store, "put_if_absent", write)
        if dies_at == "redis":
            patch.setattr(camera.backend.ledger, "complete", tell)
        with pytest.raises((StoreUnavailable, RedisUnavailable)):
            controller.round()
    assert camera.backend.ledger.complete == complete

    # If another one takes over, or the same one goes on, I expect a whole plan and nothing twice.
    camera.put("c.jpg")
    for one in (camera.controller(), controller):
        one.round()
    first = camera.segments()[0]
    plan = read_plan(camera.backend.store, first)
    assert plan is not None and plan.items == 2
    assert camera.planned() == {"a.jpg": 1, "b.jpg": 1, "c.jpg": 1}
    status = camera.backend.ledger.status(first)
    assert status is not None and status.total == 2


def test_a_controller_that_dies_between_a_shard_and_redis(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    camera.put("a.jpg")
    controller = camera.controller()

    def tell(*_: Any, **__: Any) -> None:
        raise RedisUnavailable("it died here")

    with monkeypatch.context() as patch:
        patch.setattr(camera.backend.ledger, "planned", tell)
        with pytest.raises(RedisUnavailable):
            controller.round()
    (job,) = camera.segments()
    status = camera.backend.ledger.status(job)
    assert status is not None and status.shards.total == 0

    # The one that starts next queues the shard; so does the same one, if it lives.
    camera.controller().round()
    status = camera.backend.ledger.status(job)
    assert status is not None and status.shards.total == 1
    controller.round()
    assert camera.planned() == {"a.jpg": 1}


def test_a_controller_that_dies_between_a_segment_and_its_job(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    camera.put("a.jpg")
    put = camera.backend.store.put_if_absent

    def write(key: str, data: bytes, **more: Any) -> bool:
        if key.endswith("spec.json"):
            raise StoreUnavailable("it died here")
        return put(key, data, **more)

    controller = camera.controller()
    with monkeypatch.context() as patch:
        patch.setattr(camera.backend.store, "put_if_absent", write)
        with pytest.raises(StoreUnavailable):
            controller.round()
    assert len(camera.segments()) == 1

    for one in (camera.controller(), controller):
        one.round()
    assert len(camera.segments()) == 1 and camera.planned() == {"a.jpg": 1}


@pytest.mark.parametrize("seed", range(4))
def test_two_controllers_in_any_order_plan_each_object_once(make_camera: MakeCamera, seed: int) -> None:
    # Given two controllers that both believe they keep the watch, one of which may begin a round of its own right
    # before the other writes an object that only one of them can write
    camera = make_camera(shard_size=2, overwrites="again")
    limits = {"watch_segment_images": 6}
    pair = [camera.controller(**limits), camera.controller(**limits)]
    chance = random.Random(seed)
    put = camera.backend.store.put_if_absent
    inside = False

    def write(key: str, data: bytes, **more: Any) -> bool:
        nonlocal inside
        if not inside and chance.random() < 0.3:
            inside = True
            chance.choice(pair[1:]).round()
            inside = False
        return put(key, data, **more)

    camera.backend.store.put_if_absent = write  # type: ignore[method-assign]
    for n in range(40):
        camera.put(f"{chance.randrange(1000):03d}.jpg", data=str(n).encode())
        camera.now += chance.choice([1, 1, 1, 2000])
        pair[0].round()
        if chance.random() < 0.2:
            pair.reverse()
        if chance.random() < 0.1:
            pair[chance.randrange(2)] = camera.controller(**limits)
        for job in camera.segments():
            if read_plan(camera.backend.store, job) is not None:
                camera.backend.store.delete(JobKeys(job).active)  # as if it had ended
    camera.now += 10_000  # a full listing is due, however slow the last one was
    pair[0].round()

    planned = camera.planned()
    entries = camera.backend.store.list("cam/")
    assert {f"{entry.key.removeprefix('cam/')}#{entry.etag}" for entry in entries} <= set(planned)
    assert set(planned.values()) == {1}
    assert len(camera.segments()) > 3


def test_redis_is_wiped_and_the_shards_are_read_back(camera: Camera) -> None:
    camera.put("a.jpg")
    controller = camera.controller()
    controller.round()
    camera.backend.ledger.redis.delete(*camera.backend.ledger.redis.keys(f"{camera.settings.namespace}:*"))
    camera.put("b.jpg")
    controller.round()

    tick(camera.backend, camera.settings)

    (job,) = camera.segments()
    status = camera.backend.ledger.status(job)
    assert status is not None and (status.state, status.shards.total) == ("planning", 2)
    assert camera.planned() == {"a.jpg": 1, "b.jpg": 1}


def test_the_tick_starts_no_planner_for_an_open_segment(camera: Camera) -> None:
    camera.put("a.jpg")
    camera.controller().round()
    tick(camera.backend, camera.settings)
    assert not camera.backend.ledger.messages(("control",), 0)


def test_a_canceled_segment_is_closed_and_the_next_one_goes_on(camera: Camera) -> None:
    camera.put("a.jpg")
    controller = camera.controller()
    controller.round()
    (job,) = camera.segments()
    lifecycle.cancel(camera.backend, job)
    camera.put("b.jpg")

    controller.round()

    assert len(camera.segments()) == 2 and camera.planned() == {"a.jpg": 1, "b.jpg": 1}
    # What was canceled can be taken up again: its plan is whole.
    assert read_plan(camera.backend.store, job) is not None
    assert lifecycle.reopen(camera.backend, job).state == "running"


def test_many_segments_wait_for_the_first_ones(make_camera: MakeCamera) -> None:
    # Given a backlog of more segments than may be unfinished at once
    camera = make_camera(shard_size=2)
    camera.put(*(f"{n}.jpg" for n in range(10)))
    controller = camera.controller(watch_segment_images=2)

    assert controller.round() == "full"
    assert len(camera.segments()) == 2
    assert controller.sweep.pending > 0 and controller.sweep.swept_at == 0

    # Each that ends makes room for one.
    camera.backend.store.delete(JobKeys(camera.segments()[0]).active)
    lifecycle.cancel(camera.backend, camera.segments()[0])
    controller.round()
    assert len(camera.segments()) == 3


def test_the_segments_of_a_watch_that_was_taken_over_are_its_new_owners(camera: Camera) -> None:
    # Given a watch of ann with an open segment,
    watches = Watches(camera.backend.store)
    camera.watch = watches.own("camera", "ann")
    camera.put("a.jpg")
    camera.controller(watch_segment_images=2).round()
    # if bob takes it over, I expect that segment to go on as ann's job, and the next to be bob's.
    camera.watch = watches.own("camera", "bob")
    camera.put("b.jpg")
    camera.controller(watch_segment_images=2).round()
    camera.put("c.jpg")
    camera.controller(watch_segment_images=2).round()
    statuses = [camera.backend.ledger.status(job) for job in camera.segments()]
    assert [status.owner for status in statuses if status] == ["ann", "bob"]
    assert set(camera.planned().values()) == {1} and camera.planned().total() == 3


def test_a_watch_that_was_removed_opens_no_segment_and_its_open_one_ends(camera: Camera) -> None:
    camera.put("a.jpg")
    controller = camera.controller(watch_segment_images=1)
    controller.round()
    store = camera.backend.store
    Watches(store).remove("camera", "")

    for root in leftovers(camera.backend, "camera", None):
        retire(camera.backend, root)

    assert list(store.list("watches/")) == []
    camera.put("c.jpg")
    with pytest.raises(UnknownWatch):
        controller.round()


def test_removing_ends_an_open_segment_and_keeps_what_is_planned(camera: Camera) -> None:
    camera.put("a.jpg")
    camera.controller().round()
    (job,) = camera.segments()
    Watches(camera.backend.store).remove("camera", "")
    for root in leftovers(camera.backend, "camera", None):
        retire(camera.backend, root)
        retire(camera.backend, root)
    plan = read_plan(camera.backend.store, job)
    assert plan is not None and plan.items == 1
    status = camera.backend.ledger.status(job)
    assert status is not None and status.state == "running"


def test_the_state_of_a_watch_that_was_added_again_is_not_a_leftover(camera: Camera) -> None:
    camera.put("a.jpg")
    camera.controller().round()
    assert leftovers(camera.backend, "camera", camera.watch.stamp) == []
    assert leftovers(camera.backend, "camera", "20270101t000000000") == [camera.watch.root]
