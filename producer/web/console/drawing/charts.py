"""Lays out line charts as points of an SVG, and the shades of a matrix; templates draw them without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 320, 120
_PAD = 4
SHADES = 9


@dataclass(frozen=True)
class Line:
    """One figure over the epochs: its points in the chart, and its newest value."""

    name: str
    points: str
    newest: float


@dataclass(frozen=True)
class Chart:
    """A chart of figures that share a scale from `low` to `high`."""

    title: str
    lines: tuple[Line, ...]
    low: float
    high: float


def curves(history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return a chart for each figure of a training; a loss that is measured on both parts has two lines."""
    if not history:
        return []
    losses, metrics = history[0].get("losses", {}), history[0].get("metrics", {})
    found = []
    for name in dict.fromkeys((*metrics, *losses)):
        series = {}
        if name in losses:
            series["training"] = [_figure(epoch, "losses", name) for epoch in history]
        if name in metrics:
            series["held out"] = [_figure(epoch, "metrics", name) for epoch in history]
        if chart := _chart(name.replace("_", " "), series):
            found.append(chart)
    return found


def shade(count: int, whole: int) -> int:
    """Return how dark a cell of a matrix is, 0 for none to `SHADES` for all of its row."""
    return math.ceil(SHADES * count / whole) if whole else 0


def _figure(epoch: Mapping[str, Any], part: str, name: str) -> float:
    value = epoch.get(part, {}).get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _chart(title: str, series: Mapping[str, Sequence[float]]) -> Chart | None:
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    lines = []
    for name, values in series.items():
        step = (WIDTH - 2 * _PAD) / max(1, len(values) - 1)
        points = " ".join(
            f"{_PAD + n * step:.1f},{_level(value, low, high):.1f}"
            for n, value in enumerate(values)
            if math.isfinite(value)
        )
        lines.append(Line(name, points, next((v for v in reversed(values) if math.isfinite(v)), math.nan)))
    return Chart(title, tuple(lines), low, high)


def _level(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return HEIGHT - _PAD - share * (HEIGHT - 2 * _PAD)
