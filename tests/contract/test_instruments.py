"""The list of metrics follows Prometheus' rules, and nothing in it can grow without bound."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from contract.instruments import INSTRUMENTS, KIND, METHOD, ROUTE, TASK
from contract.jobs.kinds import KINDS
from contract.models.families import RECIPES
from contract.telemetry import meters
from contract.telemetry.meters import Counter, Gauge, Histogram, Instrument, Label

ONE = Counter(name="imagemill_test_total", description="A test.", labels=(Label("kind", most=2),))
NOW = Gauge(name="imagemill_test", description="A test.")
TOOK = Histogram(name="imagemill_test_seconds", description="A test.", buckets=(1.0,))


class Notes:
    """A recorder that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, tuple[str, ...]]] = []

    def add(self, instrument: Counter, amount: float, labels: tuple[str, ...]) -> None:
        self.told.append((instrument.name, amount, labels))

    def set(self, instrument: Gauge, value: float, labels: tuple[str, ...]) -> None:
        self.told.append((instrument.name, value, labels))

    def observe(self, instrument: Histogram, value: float, labels: tuple[str, ...]) -> None:
        self.told.append((instrument.name, value, labels))


@pytest.fixture
def notes() -> Iterator[Notes]:
    recorder = Notes()
    meters.record_with(recorder)
    yield recorder
    meters.record_with(None)


@pytest.mark.parametrize("one", INSTRUMENTS, ids=lambda one: one.name)
def test_a_metric_follows_the_rules_of_prometheus(one: Instrument) -> None:
    assert re.fullmatch(r"imagemill_[a-z]+(_[a-z]+)*", one.name)
    assert one.name.endswith("_total") == isinstance(one, Counter)
    assert not one.name.endswith(("_count", "_sum", "_bucket", "_created"))
    stem = one.name.removesuffix("_total")
    if one.unit in ("seconds", "bytes"):
        assert stem.endswith(f"_{one.unit}")
    assert one.description.endswith(".") and "\n" not in one.description
    assert one.roles


def test_kinds_are_those_of_jobs() -> None:
    assert set(KIND.values) == set(KINDS)


def test_tasks_are_those_of_recipes() -> None:
    assert set(TASK.values) == {recipe.task for recipe in RECIPES.values()}


def test_names_are_given_once() -> None:
    names = [one.name for one in INSTRUMENTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("one", INSTRUMENTS, ids=lambda one: one.name)
def test_every_label_is_bounded_and_none_is_a_job_a_shard_or_a_worker(one: Instrument) -> None:
    for label in one.labels:
        assert bool(label.values) != bool(label.most)
        assert label.name not in ("job", "shard", "worker", "key", "owner", "path", "token", "le", "instance")
    series = 1
    # A route is only shown under its own methods, one or two; tests/producer/web/observe attacks that.
    free = [label for label in one.labels if not (label is METHOD and ROUTE in one.labels)]
    for label in free:
        series *= len(label.values) + 1 if label.values else label.most + 1
    assert series <= 3000


@pytest.mark.parametrize("one", [i for i in INSTRUMENTS if isinstance(i, Histogram)], ids=lambda one: one.name)
def test_buckets_grow(one: Histogram) -> None:
    assert list(one.buckets) == sorted(set(one.buckets)) and len(one.buckets) <= 16


def test_an_instrument_without_a_recorder_does_nothing() -> None:
    assert not meters.recording()
    ONE.add(1, "classify")
    NOW.set(1)
    with TOOK.seconds():
        pass


def test_an_instrument_tells_its_recorder(notes: Notes) -> None:
    # Given a recorder,
    assert meters.recording()

    # if I use instruments, I expect to find what I said, and that a block that raises has taken its time too.
    ONE.add(2, "classify")
    NOW.set(3)
    with pytest.raises(KeyError), TOOK.seconds():
        raise KeyError
    assert notes.told[:2] == [("imagemill_test_total", 2, ("classify",)), ("imagemill_test", 3, ())]
    [(name, took, labels)] = notes.told[2:]
    assert name == "imagemill_test_seconds" and took >= 0 and labels == ()
