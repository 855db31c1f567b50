"""What Prometheus' own parser reads of a page of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """The samples of a page."""

    def __init__(self, page: str) -> None:
        self.page = page
        self._samples = [one for family in text_string_to_metric_families(page) for one in family.samples]

    def series(self, name: str) -> Iterator[tuple[Mapping[str, str], float]]:
        """Yield the labels and the value of each series of a metric."""
        return ((one.labels, one.value) for one in self._samples if one.name == name)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the series of a metric that have these labels."""
        return sum(value for there, value in self.series(name) if labels.items() <= there.items())

    def values(self, name: str, label: str) -> set[str]:
        """Return every value of a label of a metric."""
        return {there[label] for there, _ in self.series(name)}
