"""What a watch planned in a span of time becomes one job with another version of a model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.errors import InvalidInput, InvalidSource, UnknownModel
from contract.jobs import lifecycle, retention
from contract.jobs.lifecycle import read_plan
from contract.keys.index import deleting
from contract.keys.jobs import JobKeys
from contract.keys.models import model_record
from contract.watches.record import Watches
from contract.watches.replays import Replay, replayed
from producer.jobs.replays import make_replay
from tests.parity import MODEL
from tests.worker.control.watching.conftest import Camera
from worker.control.plan import plan

MakeCamera = Callable[..., Camera]


@pytest.fixture
def filled(make_camera: MakeCamera) -> Camera:
    """Three segments of two objects, an hour and a bit apart; the last one is open."""
    camera = make_camera()
    controller = camera.controller()
    for n in range(3):
        camera.put(f"{n}a.jpg", f"{n}b.jpg")
        if n == 2:
            lifecycle.close(camera.backend, camera.segments()[0], "succeeded")  # two may be unfinished at once
        controller.round()
        camera.now += 4000
    camera.backend.store.put(model_record("parity", 2), MODEL.model_copy(update={"version": 2}).to_json())
    return camera


def at(camera: Camera, seconds: float) -> datetime:
    """A time after the first round."""
    return datetime.fromtimestamp(camera.now - 12_000 + seconds, UTC)


def replay_of(camera: Camera, begin: float, end: float) -> Replay:
    watch = camera.watch
    return Replay(watch.source, watch.name, watch.stamp, at(camera, begin), at(camera, end))


def names(camera: Camera, begin: float, end: float) -> list[str]:
    found = replayed(camera.backend.store, replay_of(camera, begin, end))
    return [item.key.removeprefix("cam/") for item in found]


def test_the_span_has_its_begin_and_not_its_end(filled: Camera) -> None:
    assert names(filled, 0, 8001) == ["0a.jpg", "0b.jpg", "1a.jpg", "1b.jpg", "2a.jpg", "2b.jpg"]
    assert names(filled, 0, 8000) == ["0a.jpg", "0b.jpg", "1a.jpg", "1b.jpg"]
    assert names(filled, 4000, 8000) == ["1a.jpg", "1b.jpg"]
    assert names(filled, 4001, 8000) == names(filled, -9000, 0) == names(filled, 8001, 99_000) == []


def test_it_survives_being_written_as_an_address(filled: Camera) -> None:
    replay = replay_of(filled, 4000, 8000)
    assert Replay.of_uri(replay.uri) == replay
    with pytest.raises(InvalidSource, match="names no replay"):
        Replay.of_uri("s3://photos/in/")


def test_a_shard_that_a_stopped_controller_appended_late_is_found(filled: Camera) -> None:
    # Given a controller that looked at the clock an hour before the segment opened that it appends to
    source = filled.watch.source
    filled.controller().chain.append([Item("cam/late.jpg", f"{source}late.jpg", 1)], filled.now - 12_000 + 5000)
    assert names(filled, 4000, 8000) == ["1a.jpg", "1b.jpg", "late.jpg"]


def test_the_same_replay_is_the_same_job_and_is_planned_once(filled: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    store, backend = filled.backend.store, filled.backend
    spec = make_replay(store, filled.watch, at(filled, 0), at(filled, 8000), model="parity@2")
    assert (spec.model, spec.source.kind, spec.max_errors) == ("parity@2", "replay", "5%")
    assert lifecycle.submit(backend, spec)

    # If the planner dies when the shard is written, and another one goes on
    def die(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(backend.ledger, "planned", die)
        with pytest.raises(MemoryError):
            plan(backend, spec.id)
    plan(backend, spec.id)

    # I expect each object once, with what the watch knew of it.
    done = read_plan(store, spec.id)
    assert done is not None and (done.shards, done.items) == (1, 4)
    (shard,) = filled.shards(spec.id)
    assert [item.key for item in shard] == ["cam/0a.jpg", "cam/0b.jpg", "cam/1a.jpg", "cam/1b.jpg"]
    first = filled.shards(filled.segments()[0])[0][0]
    assert shard[0] == first and first.modified is not None and first.planned_at is not None
    # The same span again is that job; another version or span is another.
    again = make_replay(store, filled.watch, at(filled, 0), at(filled, 8000), model="parity")
    assert again == spec and not lifecycle.submit(backend, again)
    others = {
        make_replay(store, filled.watch, at(filled, 0), at(filled, 8000), model="parity@1").id,
        make_replay(store, filled.watch, at(filled, 0), at(filled, 8001), model="parity@2").id,
    }
    assert len({spec.id, *others}) == 3


def test_what_a_deleted_segment_planned_is_missed_aloud(filled: Camera) -> None:
    store, backend = filled.backend.store, filled.backend
    first, second, _ = filled.segments()
    lifecycle.cancel(backend, second)
    retention.remove(backend, second)

    with pytest.raises(InvalidSource, match=rf"{second} was deleted.*before .* or from "):
        make_replay(store, filled.watch, at(filled, 0), at(filled, 8000), model="parity@2")
    # What the others planned can be had, as the sentence says.
    assert names(filled, 0, 4000) == ["0a.jpg", "0b.jpg"]
    assert names(filled, 8000, 9000) == ["2a.jpg", "2b.jpg"]
    # One that is being deleted counts as deleted, whatever is still there.
    store.put(deleting(first), b"{}")
    with pytest.raises(InvalidSource, match=f"{first} was deleted"):
        names(filled, 0, 100)


def test_a_removed_watch_has_nothing_to_replay(filled: Camera) -> None:
    store: ObjectStore = filled.backend.store
    Watches(store).remove("camera", "")
    store.delete_all([entry.key for entry in store.list(filled.watch.root)])
    with pytest.raises(InvalidSource, match="The watch camera was removed"):
        names(filled, 0, 8000)


def test_what_was_there_before_a_watch_from_now_is_in_no_replay(make_camera: MakeCamera) -> None:
    camera = make_camera(start="now")
    camera.controller().round()
    assert names(camera, -10_000, 20_000) == []


def test_mistakes_are_found_before_anything_is_written(filled: Camera) -> None:
    store, watch = filled.backend.store, filled.watch
    for begin, end, why in (
        (8000, 4000, "not after that; swap them"),
        (4001, 4002, "nothing to label in what camera planned from"),
    ):
        with pytest.raises(InvalidInput, match=why):
            make_replay(store, watch, at(filled, begin), at(filled, end), model="parity@2")
    now = at(filled, 0)
    with pytest.raises(InvalidInput, match="is not past"):
        make_replay(store, watch, now, now + timedelta(seconds=1), model="parity@2", now=now)
    with pytest.raises(UnknownModel):
        make_replay(store, watch, at(filled, 0), at(filled, 8000), model="party")
    assert [key for key in (e.key for e in store.list("jobs/")) if "-replay-" in key] == []


def test_segments_far_from_the_span_are_not_read(filled: Camera) -> None:
    store, read = filled.backend.store, list[str]()
    get = store.get

    def counted(key: str, *args: object, **more: object) -> bytes:
        read.append(key)
        return get(key, *args, **more)  # type: ignore[arg-type]

    store.get = counted  # type: ignore[method-assign]
    try:
        assert names(filled, 7900, 8001) == ["2a.jpg", "2b.jpg"]
    finally:
        store.get = get  # type: ignore[method-assign]
    first = JobKeys(filled.segments()[0]).plan_prefix
    assert not [key for key in read if key.startswith(first)]
