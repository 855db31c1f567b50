"""A hint has its watch looked at at once, but never more often than its pace allows, and nothing rests on it."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from contract.backend.ledger import Ledger
from contract.watches.hints import Hints
from contract.watches.record import Watches
from tests.waiting import wait_until
from tests.worker.control.watching.conftest import Camera
from worker.control.watching import keeper as module
from worker.control.watching.keeper import Keeper, _pace
from worker.control.watching.sweep import Outcome, Sweep

MakeCamera = Callable[..., Camera]
HOUR = 3600.0


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """When each round of each watch began."""
    found: dict[str, list[float]] = defaultdict(list)
    once = Sweep.round

    def noted(self: Sweep, *args: object, **more: object) -> Outcome:
        found[self._watch.name].append(time.monotonic())
        return once(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Sweep, "round", noted)
    return found


@pytest.fixture
def start(ledger: Ledger) -> Iterator[Callable[[Camera], Keeper]]:
    """Start a controller's keeper; it is closed at the end."""
    started: list[Keeper] = []

    def begin(camera: Camera) -> Keeper:
        started.append(Keeper(camera.backend, camera.settings, Hints(ledger)))
        started[-1].begin(f"controller-{len(started)}")
        return started[-1]

    yield begin
    for keeper in started:
        keeper.close()


def test_a_hint_has_its_watch_looked_at_before_its_time(
    make_camera: MakeCamera,
    start: Callable[[Camera], Keeper],
    rounds: dict[str, list[float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a watch that looks every hour, and has looked
    monkeypatch.setattr(module, "_HINTED_SHARE", 0.0)
    camera = make_camera(every=HOUR)
    keeper = start(camera)
    wait_until(lambda: (found := keeper._kept.get("camera")) and found.due > time.monotonic(), 20, "the first round")

    # If an object comes, and another controller is told
    camera.put("a.jpg")
    with closing(Ledger(camera.settings)) as other:
        Hints(other).tell({"camera": ["cam/a.jpg"], "nobody": ["x.jpg"]})
        # I expect it to be planned; and so after a Redis that has forgotten all
        wait_until(lambda: camera.planned() == {"a.jpg": 1}, 20, "the object to be planned")
        other.redis.flushall()
        camera.put("b.jpg")
        Hints(other).tell({"camera": ["cam/b.jpg"]})
        wait_until(lambda: camera.planned() == {"a.jpg": 1, "b.jpg": 1}, 20, "the next one")
        # A hint that lies costs a look.
        looks = len(rounds["camera"])
        Hints(other).tell({"camera": ["cam/none.jpg"]})
        wait_until(lambda: len(rounds["camera"]) > looks, 20, "another look")
    assert camera.planned() == {"a.jpg": 1, "b.jpg": 1}


def test_many_hints_do_not_have_a_watch_looked_at_without_end(
    make_camera: MakeCamera, start: Callable[[Camera], Keeper], rounds: dict[str, list[float]], ledger: Ledger
) -> None:
    camera = make_camera(every=10.0)
    start(camera)
    wait_until(lambda: rounds["camera"], 20, "the first round")
    hints, n = Hints(ledger), itertools.count()

    def four() -> bool:
        hints.tell({"camera": [f"cam/{next(n)}.jpg"]})
        return len(rounds["camera"]) >= 4

    wait_until(four, 30, "three hinted rounds")
    gaps = [b - a for a, b in itertools.pairwise(rounds["camera"])]
    assert min(gaps) > 0.9, gaps


def test_a_watch_that_is_paused_or_waits_for_a_server_is_not_hurried(
    make_camera: MakeCamera, start: Callable[[Camera], Keeper]
) -> None:
    camera = make_camera(every=HOUR)
    keeper = start(camera)
    kept = wait_until(
        lambda: (found := keeper._kept.get("camera")) and found.due > time.monotonic() and found, 20, "a round"
    )
    with keeper._wake:
        kept.reason = "The store is away."
    due = kept.due
    keeper.wake(["camera"])
    assert kept.due == due
    kept.reason = ""
    Watches(camera.backend.store).put(camera.watch.model_copy(update={"paused": True}))
    # The keeper takes the watch out and puts it back as it is now, and this thread may look in between.
    paused = wait_until(lambda: (found := keeper._kept.get("camera")) and found.watch.paused and found, 20, "the pause")
    wait_until(lambda: not paused.running and paused.due > time.monotonic(), 20, "its round")
    due = paused.due
    keeper.wake(["camera"])
    assert paused.due == due


@pytest.mark.parametrize(
    ("every", "took", "pace"),
    [(0.5, 0.01, 0.5), (5.0, 0.01, 1.0), (60.0, 0.01, 6.0), (HOUR, 0.01, 360.0), (5.0, 0.1, 2.0), (5.0, 9.0, 5.0)],
)
def test_the_pace(every: float, took: float, pace: float) -> None:
    assert _pace(every, took) == pytest.approx(pace)
