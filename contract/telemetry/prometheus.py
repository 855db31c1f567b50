"""Keeps the figures of a process for Prometheus, on prometheus-client: the only module that imports it.

Labels are bounded here: a value that is not in the closed set of its label, or is one too many, counts as `other`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from contract.errors import InvalidSettings
from contract.instruments import INSTRUMENTS
from contract.printable import printable
from contract.telemetry.meters import OTHER, Counter, Gauge, Histogram, Instrument, Label, Role
from contract.telemetry.routes import Answer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_LONGEST = 100
_ZEROS = 96
"""Series of a metric that are shown before they are used; a rate needs a value before the first event."""


class Metrics:
    """A recorder that answers `/metrics`. Raises InvalidSettings if prometheus-client is not installed."""

    def __init__(self, roles: Iterable[Role], instruments: Iterable[Instrument] = INSTRUMENTS) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise InvalidSettings(
                "IMAGEMILL_METRICS_PORT is set, and prometheus-client is not installed; run `pip install "
                "'imagemill[control]'` (or `worker`, `web`), or unset the variable."
            ) from error
        self._library = prometheus_client
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry: CollectorRegistry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        prometheus_client.PlatformCollector(registry=self._registry)
        prometheus_client.GCCollector(registry=self._registry)
        wanted = set(roles)
        self._lock = threading.Lock()
        self._seen: dict[tuple[Instrument, str], set[str]] = {}
        self._series: dict[tuple[Instrument, tuple[str, ...]], Any] = {}
        self._before: list[Callable[[], None]] = []
        self._families = {one: self._family(one) for one in instruments if wanted & set(one.roles)}
        for one in self._families:
            self._show_zeros(one)

    def before_each_scrape(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before figures are shown: it sets gauges that cost nothing to read."""
        self._before.append(refresh)

    def page(self) -> Answer:
        """Answer `/metrics`, in Prometheus' text format."""
        for refresh in self._before:
            refresh()
        body = self._library.generate_latest(self._registry)
        return Answer(200, body, self._library.CONTENT_TYPE_PLAIN_0_0_4)

    # A recorder

    def add(self, instrument: Counter, amount: float, labels: tuple[str, ...]) -> None:
        if (series := self._find(instrument, labels)) is not None:
            series.inc(amount)

    def set(self, instrument: Gauge, value: float, labels: tuple[str, ...]) -> None:
        if (series := self._find(instrument, labels)) is not None:
            series.set(value)

    def observe(self, instrument: Histogram, value: float, labels: tuple[str, ...]) -> None:
        if (series := self._find(instrument, labels)) is not None:
            series.observe(value)

    def _find(self, instrument: Instrument, labels: tuple[str, ...]) -> Any:
        """Return the series of some labels, or None for an instrument of another role."""
        found = self._series.get((instrument, labels))
        if found is not None:
            return found
        family = self._families.get(instrument)
        if family is None:
            return None
        if not instrument.labels:
            self._series[instrument, labels] = family
            return family
        # What is not told counts as an empty value, so that a measurement never raises.
        told = (*labels, *[""] * len(instrument.labels))
        bounded = tuple(self._bounded(instrument, *pair) for pair in zip(instrument.labels, told, strict=False))
        series = family.labels(*bounded)
        if bounded == labels:
            self._series[instrument, labels] = series
        return series

    def _bounded(self, instrument: Instrument, label: Label, value: str) -> str:
        if label.values:
            return value if value in label.values else OTHER
        value = printable(value)[:_LONGEST]
        with self._lock:
            seen = self._seen.setdefault((instrument, label.name), set())
            if value not in seen:
                if len(seen) >= label.most:
                    return OTHER
                seen.add(value)
        return value

    def _family(self, one: Instrument) -> Any:
        names = [label.name for label in one.labels]
        if isinstance(one, Counter):
            return self._library.Counter(one.name, one.description, names, registry=self._registry)
        if isinstance(one, Histogram):
            return self._library.Histogram(
                one.name, one.description, names, registry=self._registry, buckets=one.buckets
            )
        return self._library.Gauge(one.name, one.description, names, registry=self._registry)

    def _show_zeros(self, one: Instrument) -> None:
        """Make the series of a counter whose labels are closed sets."""
        if not isinstance(one, Counter):
            return
        combinations: list[tuple[str, ...]] = [()]
        for label in one.labels:
            combinations = [(*some, value) for some in combinations for value in label.values]
        for values in combinations[:_ZEROS] if one.labels else ():
            self._find(one, values)
