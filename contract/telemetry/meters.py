"""The kinds of instruments, and the one hook through which they reach whoever records them.

Code measures at its edges by calling an instrument. A process that nobody looks into has no recorder, and then a call
does nothing: whoever measures does not know Prometheus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

Unit = Literal["", "seconds", "bytes", "images", "shards", "jobs", "workers", "slots", "segments"]
Role = Literal["controller", "worker", "web"]

OTHER = "other"
"""The label value that stands for all that are not known, or are too many."""


class Recorder(Protocol):
    """Whoever keeps the figures of a process. Its methods are called from any thread, and must not raise."""

    def add(self, instrument: Counter, amount: float, labels: tuple[str, ...]) -> None: ...

    def set(self, instrument: Gauge, value: float, labels: tuple[str, ...]) -> None: ...

    def observe(self, instrument: Histogram, value: float, labels: tuple[str, ...]) -> None: ...


_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """Send every measurement of this process to `recorder`, or to nobody."""
    global _recorder
    _recorder = recorder


def recording() -> bool:
    """Return whether measurements of this process go anywhere."""
    return _recorder is not None


@dataclass(frozen=True)
class Label:
    """A label of an instrument, whose values are bounded: hostile input must not make a million time series.

    Either `values` is the closed set, or a process shows the first `most` values that it meets; all others are `other`.
    """

    name: str
    values: tuple[str, ...] = ()
    most: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Instrument:
    """What is measured: one metric of Prometheus, with its full name."""

    kind: ClassVar[Literal["counter", "gauge", "histogram"]]
    """The type that Prometheus sees."""

    name: str
    description: str
    unit: Unit = ""
    labels: tuple[Label, ...] = ()
    roles: tuple[Role, ...] = ("worker",)
    """The roles of the processes that show it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counter(Instrument):
    """A number that only grows while its process lives. It grows when something has happened, not when it begins."""

    kind = "counter"

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Count `amount`, with the values of `labels` in their order."""
        if _recorder is not None:
            _recorder.add(self, amount, labels)

    def seconds(self, *labels: str) -> AbstractContextManager[None]:
        """Count the seconds that the block takes, whether or not it raises."""
        return _timed(self.add, labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Gauge(Instrument):
    """A number as it is now."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        """Show `value`, with the values of `labels` in their order."""
        if _recorder is not None:
            _recorder.set(self, value, labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram(Instrument):
    """A distribution: how many values were at most each of `buckets`, their number and their sum."""

    kind = "histogram"

    buckets: tuple[float, ...]

    def observe(self, value: float, *labels: str) -> None:
        """Add one value, with the values of `labels` in their order."""
        if _recorder is not None:
            _recorder.observe(self, value, labels)

    def seconds(self, *labels: str) -> AbstractContextManager[None]:
        """Observe the seconds that the block takes, whether or not it raises."""
        return _timed(self.observe, labels)


@contextmanager
def _timed(record: Callable[..., None], labels: tuple[str, ...]) -> Iterator[None]:
    if _recorder is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        record(time.perf_counter() - began, *labels)
