"""The seconds in which a device computes: each counts once, however many models have work there."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from contract.telemetry import meters
from contract.telemetry.meters import Counter, Gauge, Histogram
from worker.engine import busy
from worker.engine.busy import busy_on


class Seconds:
    """A recorder that adds up what is counted of each device."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}

    def add(self, instrument: Counter, amount: float, labels: tuple[str, ...]) -> None:
        assert instrument.name == "imagemill_device_busy_seconds_total"
        self.of[labels[0]] = self.of.get(labels[0], 0.0) + amount

    def set(self, instrument: Gauge, value: float, labels: tuple[str, ...]) -> None: ...

    def observe(self, instrument: Histogram, value: float, labels: tuple[str, ...]) -> None: ...


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the test, which it sets."""
    at = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: at[0])
    monkeypatch.setattr(busy, "_devices", {})
    return at


@pytest.fixture
def seconds(now: list[float]) -> Iterator[Seconds]:
    recorder = Seconds()
    meters.record_with(recorder)
    yield recorder
    meters.record_with(None)


def test_two_models_on_a_device_do_not_count_twice(now: list[float], seconds: Seconds) -> None:
    # Given a batch of a classifier and a step of a training that overlap,
    with busy_on("cuda:0").computing():
        now[0] = 2.0
        with busy_on("cuda:0").computing():
            now[0] = 5.0
        now[0] = 6.0
    # and a pause, and a batch after it,
    now[0] = 10.0
    with busy_on("cuda:0").computing():
        now[0] = 11.0

    # I expect the time in which there was work,
    assert seconds.of == {"cuda:0": 7.0}

    # and that another device counts for itself.
    with busy_on("cpu").computing():
        now[0] = 12.0
    assert seconds.of == {"cuda:0": 7.0, "cpu": 1.0}


def test_work_that_fails_counts_and_leaves_nothing_behind(now: list[float], seconds: Seconds) -> None:
    def failing() -> None:
        with busy_on("cpu").computing():
            now[0] = 1.0
            raise MemoryError

    with pytest.raises(MemoryError):
        failing()
    now[0] = 5.0
    with busy_on("cpu").computing():
        now[0] = 6.0
    assert seconds.of == {"cpu": 2.0}
