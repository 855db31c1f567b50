"""What a sweep finds: at the end of the prefix, anywhere by a full listing, and wherever a hint points."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from contract.backend.listing import Entry
from contract.errors import StoreUnavailable
from contract.times import iso
from contract.watches.record import Watches
from tests.worker.control.watching.conftest import Camera, Controller
from worker.control.watching import sweep

MakeCamera = Callable[..., Camera]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prefix counts as one of several pages."""
    monkeypatch.setattr(sweep, "_PAGE", 0)


def listed(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The key that each listing of the prefix begins after."""
    asked: list[str] = []
    pages = camera.backend.store.pages

    def told(prefix: str, *, after: str = "", **more: Any) -> Iterator[Sequence[Entry]]:
        if prefix == "cam/":
            asked.append(after)
        return pages(prefix, after=after, **more)

    monkeypatch.setattr(camera.backend.store, "pages", told)
    return asked


@pytest.mark.usefixtures("large")
def test_the_tail_finds_what_sorts_behind_and_a_full_listing_the_rest(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.put("m.jpg")
    controller = camera.controller()
    controller.round()
    asked = listed(camera, monkeypatch)
    camera.put("a.jpg", "z.jpg")

    controller.round()
    assert camera.planned() == {"m.jpg": 1, "z.jpg": 1} and asked == ["cam/m.jpg"]

    camera.now += camera.settings.watch_sweep_seconds
    controller.round()
    assert camera.planned() == {"m.jpg": 1, "z.jpg": 1, "a.jpg": 1} and asked[1:] == [""]


def test_a_small_prefix_is_listed_in_full_often(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    camera.put("m.jpg")
    controller = camera.controller()
    controller.round()
    asked = listed(camera, monkeypatch)
    camera.put("a.jpg", "z.jpg")
    camera.now += 900  # twenty times what the last listing took, though this process stood still in it
    controller.round()
    assert set(camera.planned()) == {"a.jpg", "m.jpg", "z.jpg"} and asked == [""]


@pytest.mark.usefixtures("large")
def test_a_hint_finds_a_key_before_the_end_at_once_and_once(camera: Camera) -> None:
    camera.put("m.jpg")
    controller = camera.controller()
    controller.round()
    camera.put("a.jpg", "b.txt", "z.jpg")
    hints = ["cam/a.jpg", "cam/a.jpg", "cam/b.txt", "cam/gone.jpg", "cam/z.jpg", "cam/m.jpg", "elsewhere/x.jpg", ""]

    for _ in range(3):
        assert controller.round(hints) == "planned"

    assert camera.planned() == {"a.jpg": 1, "m.jpg": 1, "z.jpg": 1}


@pytest.mark.usefixtures("large")
def test_a_hint_names_a_key_and_not_those_that_begin_like_it(camera: Camera) -> None:
    camera.put("a.jpg", "a.jpg.png", "m.jpg")
    controller = camera.controller()
    controller.round()
    camera.put("b.jpg.png")
    controller.round(["cam/b.jpg"])
    assert set(camera.planned()) == {"a.jpg", "a.jpg.png", "m.jpg"}


@pytest.mark.usefixtures("large")
def test_many_hints_are_one_listing(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    camera.put("z.jpg")
    controller = camera.controller()
    controller.round()
    names = [f"{n:03d}.jpg" for n in range(100)]
    camera.put(*names)
    asked = listed(camera, monkeypatch)
    controller.round([f"cam/{name}" for name in names])
    assert set(camera.planned()) == {*names, "z.jpg"} and asked == [""]


def test_an_overwritten_object_is_labelled_once(camera: Camera) -> None:
    camera.put("a.jpg", data=b"1")
    controller = camera.controller()
    controller.round()
    camera.put("a.jpg", data=b"2")
    controller.round(["cam/a.jpg"])
    assert camera.planned() == {"a.jpg": 1}


def test_an_overwritten_object_is_labelled_again_if_that_is_wanted(make_camera: MakeCamera) -> None:
    camera = make_camera(overwrites="again")
    camera.put("a.jpg", data=b"1")
    controller = camera.controller()
    controller.round()
    camera.put("a.jpg", data=b"2")
    for _ in range(2):
        controller.round(["cam/a.jpg"])
    planned = camera.planned()
    assert len(planned) == 2 and set(planned.values()) == {1}
    assert {key.partition("#")[0] for key in planned} == {"a.jpg"}


def test_from_now_leaves_out_what_was_there(make_camera: MakeCamera) -> None:
    # Given a watch that was added a minute after the first object, and before the second
    camera = make_camera(start="now")
    camera.put("old.jpg", "older.jpg")
    ((modified),) = {int(e.modified) for e in camera.backend.store.list("cam/old.")}
    added = Watches(camera.backend.store).get("camera")
    camera.watch = added.model_copy(update={"created_at": iso(modified + 60.0)})
    Watches(camera.backend.store).put(camera.watch)
    assert camera.controller().round() == "planned"
    assert camera.planned() == {}

    # Its clock says that these came after it, in the same second or later; a controller that is new knows what was
    # there before.
    camera.watch = camera.watch.model_copy()
    camera.put("new.jpg")
    for controller in (camera.controller(), camera.controller()):
        controller.round()
    assert camera.planned() == {"new.jpg": 1}


def test_a_backfill_makes_room_for_others_and_goes_on(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a listing of three pages, of which a round has time for one
    camera.put(*(f"{n}.jpg" for n in range(9)))
    pages = camera.backend.store.pages

    def small(prefix: str, **more: Any) -> Iterator[Sequence[Entry]]:
        for page in pages(prefix, **more):
            yield from (page[n : n + 3] for n in range(0, len(page), 3))

    monkeypatch.setattr(camera.backend.store, "pages", small)
    controller: Controller = camera.controller()
    assert controller.sweep.round(0.0) == "more"
    assert sum(camera.planned().values()) == 3
    outcomes = [controller.sweep.round(0.0) for _ in range(3)]
    assert outcomes[-1] == "planned"
    assert camera.planned() == {f"{n}.jpg": 1 for n in range(9)}


@pytest.mark.usefixtures("large")
def test_a_hint_behind_a_listing_that_is_under_way_is_not_missed(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.put(*(f"{n}.jpg" for n in range(9)))
    pages = camera.backend.store.pages

    def small(prefix: str, **more: Any) -> Iterator[Sequence[Entry]]:
        for page in pages(prefix, **more):
            yield from (page[n : n + 3] for n in range(0, len(page), 3))

    monkeypatch.setattr(camera.backend.store, "pages", small)
    controller = camera.controller()
    controller.sweep.round(0.0)
    camera.put("00.jpg")  # where the listing has been
    controller.sweep.round(0.0, ["cam/00.jpg"])
    assert "00.jpg" in camera.planned()


@pytest.mark.usefixtures("large")
def test_a_listing_that_fails_in_its_middle_goes_on_there(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a full listing of three pages, and a store that does not answer after the first of them,
    camera.put(*(f"{n}.jpg" for n in range(9)))
    pages = camera.backend.store.pages
    asked: list[str] = []

    def failing(prefix: str, *, after: str = "", **more: Any) -> Iterator[Sequence[Entry]]:
        if prefix == "cam/":
            asked.append(after)
        for page in pages(prefix, after=after, **more):
            for n in range(0, len(page), 3):
                if n and prefix == "cam/" and len(asked) == 1:
                    raise StoreUnavailable("It does not answer.")
                yield page[n : n + 3]

    monkeypatch.setattr(camera.backend.store, "pages", failing)
    controller = camera.controller()
    with pytest.raises(StoreUnavailable):
        controller.round()
    assert controller.sweep.swept_at == 0.0

    # I expect the next round to go on behind that page, and not to take the listing for complete.
    assert controller.round() == "planned"
    assert asked == ["", "cam/2.jpg"]
    assert camera.planned() == {f"{n}.jpg": 1 for n in range(9)}


@pytest.mark.usefixtures("large")
def test_nothing_is_planned_before_what_was_there_is_recorded(
    make_camera: MakeCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a watch of what comes from now on, and a store that fails when what was there is recorded,
    camera = make_camera(start="now", shard_size=1)
    camera.put("old.jpg")
    camera.watch = camera.watch.model_copy(update={"created_at": iso(time.time() + 3600)})
    Watches(camera.backend.store).put(camera.watch)
    controller = camera.controller()

    def unavailable(hashes: Sequence[bytes]) -> None:
        raise StoreUnavailable("It does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(controller.chain, "record_before", unavailable)
        with pytest.raises(StoreUnavailable):
            controller.round()

    # I expect the next round to record it, whatever else it finds.
    controller.round()
    assert camera.planned() == {}
    assert camera.segments() == [""]


def test_the_oldest_object_that_waits_is_the_lag(camera: Camera) -> None:
    camera.put("a.jpg")
    controller = camera.controller()
    assert controller.sweep.oldest is None
    controller.round()
    assert (controller.sweep.oldest, controller.sweep.pending, controller.sweep.swept_at) == (None, 0, camera.now)
