"""Draw the plots of trainings and evaluations with Matplotlib, as PNG to be read at 800 pixels wide. Knows no page.

The colours are from Okabe & Ito 2008: colour-blind readers tell them apart, and so does a grey print.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from worker.metrics.classification import Bin

_BLUE, _ORANGE, _GREEN, _PURPLE, _INK, _PALE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#333333", "#DDDDDD"
_STYLES = ((_BLUE, "-", "o"), (_ORANGE, "--", "s"), (_GREEN, "-.", "^"), (_PURPLE, ":", "D"))
_WIDTH, _DPI = 8.0, 200  # inches, and pixels an inch: 800 pixels on a page, at twice the density
_LABELS = 40  # more cannot be read side by side
_FONT = FontProperties(family="DejaVu Sans")

BINS = 40
"""Bins of a histogram."""


def curves(title: str, axis: str, series: Mapping[str, Sequence[float]], *, best: int | None = None) -> bytes:
    """Draw values over epochs, counted from 1. `best` marks an epoch; `axis` names the quantity and its unit."""
    figure, ax = _axes(title, 4.0)
    longest = max(len(values) for values in series.values())
    for (name, values), (colour, line, marker) in zip(series.items(), cycle(_STYLES), strict=False):
        shape = marker if longest <= 40 else None
        ax.plot(
            range(1, len(values) + 1), values, color=colour, linestyle=line, marker=shape, ms=4, label=shorten(name)
        )
    if best is not None:
        ax.axvline(best, color=_INK, linewidth=1, linestyle=(0, (1, 2)), label=f"best epoch, {best}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlim(0.5, longest + 0.5)
    _label(ax, "epoch", axis)
    ax.grid(color=_PALE, linewidth=0.6)
    _legend(ax)
    return _png(figure)


def reliability(bins: Sequence[Bin], error: float) -> bytes:
    """Draw the accuracy in each bin of scores; `error` is the expected calibration error, from 0 to 1."""
    figure = Figure(figsize=(_WIDTH, 6.0), dpi=_DPI, layout="constrained")
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    ax.set_title(f"Reliability: expected calibration error {error:.2%}".replace("%", " %"), size=12)
    total = sum(one.examples for one in bins)
    low, widths = [one.low for one in bins], [one.high - one.low for one in bins]
    heights = [one.accuracy or 0.0 for one in bins]
    ax.bar(low, heights, widths, align="edge", color=_BLUE, edgecolor="white", label="accuracy of the bin")
    full = [(one.score, one.accuracy) for one in bins if one.examples]
    ax.plot([0, 1], [0, 1], color=_INK, linestyle="--", linewidth=1, label="perfect calibration")
    ax.plot(*zip(*full, strict=True), "o", color=_ORANGE, mec="white", clip_on=False, label="mean score of the bin")
    below.bar(low, [one.examples / total for one in bins], widths, align="edge", color="#888888", edgecolor="white")
    ax.set_ylim(0, 1)
    ax.set_xlim(0, 1)
    _label(ax, "", "accuracy (%)")
    _label(below, "score of the predicted class (%)", "examples (%)")
    for each in (ax.yaxis, below.xaxis, below.yaxis):
        each.set_major_formatter(FuncFormatter(_hundredths))
    for each in (ax, below):
        each.grid(color=_PALE, linewidth=0.6)
        each.set_axisbelow(True)
    _legend(ax, "upper left")
    return _png(figure)


def histogram(
    title: str,
    axis: str,
    groups: Mapping[str, ArrayLike],
    *,
    span: tuple[float, float] | None = None,
    mark: tuple[str, float] | None = None,
) -> bytes:
    """Draw the distribution of up to four groups of values [n], each in shares of its group.

    `span` gives the ends of the axis, by default the least and the greatest value; `mark` is a named vertical line.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in groups.items()}
    filled = [values for values in arrays.values() if values.size]
    edges = np.histogram_bin_edges(np.concatenate(filled) if filled else np.zeros(1), BINS, span)
    return binned(title, axis, {name: np.histogram(values, edges)[0] for name, values in arrays.items()}, edges, mark)


def binned(
    title: str,
    axis: str,
    groups: Mapping[str, ArrayLike],
    edges: ArrayLike,
    mark: tuple[str, float] | None = None,
) -> bytes:
    """Draw a histogram of groups that are already counted: counts [bins] between edges [bins + 1]."""
    figure, ax = _axes(title, 4.0)
    ends = np.asarray(edges, dtype=np.float64)
    for (name, found), (colour, line, _) in zip(groups.items(), _STYLES, strict=False):
        counts = np.asarray(found, dtype=np.int64)
        shares = counts / max(counts.sum(), 1)
        label = f"{shorten(name)} ({counts.sum():,})"
        ax.stairs(shares, ends, fill=True, color=colour, alpha=0.2)
        ax.stairs(shares, ends, color=colour, linestyle=line, linewidth=1.6, label=label)
    if mark:
        ax.axvline(mark[1], color=_INK, linewidth=1, linestyle=(0, (1, 2)), label=f"{shorten(mark[0])}, {mark[1]:.3g}")
    ax.yaxis.set_major_formatter(FuncFormatter(_hundredths))
    ax.set_xlim(ends[0], ends[-1])
    ax.set_ylim(bottom=0)
    alone = len(groups) == 1 and not mark
    _label(ax, axis, "share (%)" if alone else "share of the group (%)")
    ax.grid(color=_PALE, linewidth=0.6)
    if not alone:
        _legend(ax)
    return _png(figure)


def counts(title: str, axis: str, values: Mapping[str, int], rest: tuple[str, int] | None = None) -> bytes:
    """Draw how many examples each class has and its share of the total, from top to bottom in the given order.

    `rest`, a name and a count, stands below without a bar, which would often be the longest and be read as a class.
    """
    rows = [*values.items(), *([rest] if rest else [])]
    n, total = len(rows), max(1, sum(count for _, count in rows))
    figure, ax = _axes(title, 1.4 + 0.22 * max(n, 4))
    ax.barh(range(len(values)), list(values.values()), 0.8, color=_BLUE)
    ax.set_yticks(range(n), [shorten(name, 28) for name, _ in rows], size=8, parse_math=False)
    longest = max(values.values(), default=1)
    for at, (_, count) in enumerate(rows):
        place = count if at < len(values) else 0
        ax.text(
            place + 0.006 * longest, at, f"{count:,} ({100 * count / total:.3g} %)", va="center", size=8, color=_INK
        )
    ax.set_ylim(n - 0.4, -0.6)
    ax.set_xlim(0, 1.22 * longest)  # room for the number beside the longest bar
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    _label(ax, axis, "")
    ax.grid(axis="x", color=_PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    return _png(figure)


def bars(title: str, axis: str, values: Mapping[str, float | None]) -> bytes:
    """Draw a share from 0 to 1 for each class, from top to bottom in the given order; None has no bar."""
    n = len(values)
    figure, ax = _axes(title, 1.4 + 0.22 * min(max(n, 4), _LABELS))
    ax.barh(range(n), [value or 0.0 for value in values.values()], 0.8, color=_BLUE)
    ticks, names = sparse_ticks(list(values), 28)
    ax.set_yticks(ticks, names, size=8, parse_math=False)
    for at, value in enumerate(values.values()):
        if n <= _LABELS or value is None:
            text, place = ("none", 0.0) if value is None else (f"{100 * value:.1f}", value)
            ax.text(place + 0.006, at, text, va="center", size=8 if n <= _LABELS else 5, color=_INK)
    ax.set_ylim(n - 0.4, -0.6)
    ax.set_xlim(0, 1.06)
    ax.xaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    ax.xaxis.set_major_formatter(FuncFormatter(_hundredths))
    _label(ax, axis, "")
    ax.grid(axis="x", color=_PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    return _png(figure)


def _axes(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    ax = figure.add_subplot()
    ax.set_title(shorten(title, 80), size=12, parse_math=False)
    ax.tick_params(labelsize=9)
    return figure, ax


def _label(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(shorten(x, 80), size=10, parse_math=False)
    ax.set_ylabel(shorten(y, 80), size=10, parse_math=False)


def _legend(ax: Axes, place: Literal["best", "upper left"] = "best") -> None:
    for text in ax.legend(loc=place, fontsize=9, framealpha=0.9).get_texts():
        text.set_parse_math(False)


def sparse_ticks(names: Sequence[str], width: int) -> tuple[list[int], list[str]]:
    """Return the places and texts of the labels, evenly thinned to at most `_LABELS`."""
    at = list(range(0, len(names), math.ceil(len(names) / _LABELS)))
    return at, [shorten(names[one], width) for one in at]


def shorten(text: str, width: int = 40) -> str:
    """Put the text on one line, cut its middle if it is too long, and replace what the font lacks with a box."""
    text = " ".join(text.split())
    if len(text) > width:
        text = f"{text[: (width - 1) // 2 + (width - 1) % 2]}…{text[-((width - 1) // 2) :]}"
    return "".join(sign if ord(sign) in _signs() else "□" for sign in text)


@cache
def _signs() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())


def _hundredths(share: float, _: int | None = None) -> str:
    return f"{100 * share:.4g}"


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
