"""The rate that admission counts with, and the latencies that are shown; a test moves the clock."""

from __future__ import annotations

import time

import pytest

from worker.process.serving.pace import Pace


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test changes."""
    at = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return at


def interval(pace: Pace, now: list[float], images: int, seconds: float = 0.5, *, starved: bool = False) -> None:
    now[0] += seconds
    if images:
        pace.done(images, 20.0)
    if starved:
        pace.starved()
    pace.look()


def test_the_rate_is_measured_only_while_something_waits(now: list[float]) -> None:
    pace = Pace(100.0)
    interval(pace, now, 5, starved=True)
    assert pace.rate == 100.0
    for _ in range(20):
        interval(pace, now, 25)
    assert pace.rate == pytest.approx(50.0, rel=0.01)


def test_batches_that_take_longer_than_an_interval_are_counted_over_their_whole_time(now: list[float]) -> None:
    # Given a model that does 32 images in two seconds, four looks, and in whose queue there is always something,
    pace = Pace(100.0)
    interval(pace, now, 0, starved=True)
    for turn in range(1, 81):
        interval(pace, now, 0 if turn % 4 else 32)
    # I expect 16 images a second, and not the 64 of the interval in which a batch ended.
    assert pace.rate == pytest.approx(16.0, rel=0.01)


def test_idle_time_is_not_work(now: list[float]) -> None:
    pace = Pace(100.0)
    for _ in range(10):
        interval(pace, now, 0, starved=True)
    interval(pace, now, 50)
    assert pace.rate == pytest.approx(100.0)


def test_latencies_and_what_was_done_lately(now: list[float]) -> None:
    pace = Pace(100.0)
    assert pace.look() == (0.0, 0.0, 0.0)
    for n in range(100):
        pace.done(1, float(n))
    now[0] += 1
    lately, p50, p99 = pace.look()
    assert (lately, p50, p99) == (100.0, 50.0, 99.0)
    now[0] += 60
    assert pace.look() == (0.0, 50.0, 99.0)
