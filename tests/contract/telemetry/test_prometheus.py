"""Figures reach Prometheus' own parser, and no input can make series without bound."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contract.errors import InvalidSettings
from contract.instruments import INSTRUMENTS
from contract.telemetry.meters import Counter, Gauge, Histogram, Instrument, Label, Role
from contract.telemetry.prometheus import Metrics

SEEN = Counter(
    name="imagemill_seen_total", description="A test.", labels=(Label("model", most=3), Label("code", ("a", "b")))
)
NOW = Gauge(name="imagemill_now", description="A test.")
TOOK = Histogram(name="imagemill_took_seconds", description="A test.", buckets=(1.0, 2.0))
CLOSED = Counter(name="imagemill_closed_total", description="A test.", labels=(Label("code", ("a", "b")),))
OURS: Sequence[Instrument] = (SEEN, NOW, TOOK, CLOSED)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """What Prometheus reads, by name and by the values of its labels in the order of their names."""
    page = metrics.page()
    assert page.status == 200
    return {
        (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page.body.decode())
        for sample in family.samples
    }


def test_prometheus_reads_what_was_measured() -> None:
    # Given figures of each kind,
    metrics = Metrics(["worker"], OURS)
    metrics.add(SEEN, 2, ("cnn@1", "a"))
    metrics.add(SEEN, 3, ("cnn@1", "a"))
    metrics.set(NOW, 7, ())
    metrics.observe(TOOK, 1.5, ())

    # if Prometheus' parser reads the page, I expect them, and counters that nobody used at 0.
    found = samples(metrics)
    assert found["imagemill_seen_total", ("a", "cnn@1")] == 5
    assert found["imagemill_now", ()] == 7
    assert found["imagemill_took_seconds_count", ()] == 1
    assert found["imagemill_took_seconds_bucket", ("1.0",)] == 0
    assert found["imagemill_took_seconds_bucket", ("2.0",)] == 1
    assert found["imagemill_closed_total", ("a",)] == found["imagemill_closed_total", ("b",)] == 0


def test_hostile_labels_end_in_other() -> None:
    # Given ten thousand models and codes that somebody made up, with line feeds, quotes and halves of surrogates,
    metrics = Metrics(["worker"], OURS)
    for n in range(10_000):
        metrics.add(SEEN, 1, (f'm\n{n}"\\\ud800{"x" * n}', f"code-{n}"))

    # if the page is read, I expect three models, one code, all that was counted, and no line longer than its bound.
    found = {key: value for key, value in samples(metrics).items() if key[0] == "imagemill_seen_total"}
    assert len(found) == 4
    assert {code for _, (code, _) in found} == {"other"}
    assert sum(found.values()) == 10_000
    assert max(map(len, metrics.page().body.splitlines())) < 300


def test_a_measurement_never_raises() -> None:
    # Given a figure of another role, and labels that are forgotten or too many,
    metrics = Metrics(["worker"], [SEEN])
    metrics.set(NOW, 1, ())
    metrics.add(SEEN, 1, ())
    metrics.add(SEEN, 1, ("cnn@1", "a", "what"))

    # I expect the first nowhere, and the others counted.
    found = samples(metrics)
    assert ("imagemill_now", ()) not in found
    assert found["imagemill_seen_total", ("other", "")] == found["imagemill_seen_total", ("a", "cnn@1")] == 1


@pytest.mark.parametrize("roles", [["controller"], ["worker"], ["controller", "worker"], ["web"]])
def test_a_process_shows_the_metrics_of_its_roles(roles: list[Role]) -> None:
    body = Metrics(roles).page().body.decode()
    for one in INSTRUMENTS:
        shown = f"# TYPE {one.name} {one.kind}\n" in body
        assert shown == bool(set(roles) & set(one.roles)), one.name
    assert "process_resident_memory_bytes" in body


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def absent(name: str, *more: Any) -> Any:
        if name == "prometheus_client":
            raise ImportError(name)
        return known(name, *more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InvalidSettings, match=r"pip install 'imagemill\[control\]'"):
        Metrics(["worker"])
