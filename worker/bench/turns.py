"""Runs the steps of a bench by turns, because a machine's speed drifts, and compares what they measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from worker.bench.stack import say


def in_turn(
    steps: Mapping[str, Callable[[], float]], repeat: int, warm_up: Mapping[str, Callable[[], float]] | None = None
) -> dict[str, list[float]]:
    """Run each step `repeat` times after a warm-up, and return what they measured.

    `warm_up` has shorter steps for the warm-up; without it each step runs once more.
    """
    runs: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in (warm_up or steps).items():
        say(f"warming up: {name}")
        step()
    for n in range(repeat):
        for name, step in steps.items():
            say(f"run {n + 1} of {repeat}: {name}")
            runs[name].append(step())
    return runs


def ratios(runs: Mapping[str, list[float]], ideal: str) -> dict[str, float]:
    """Return the median ratio of each figure to `ideal`, run by run."""
    return {
        name: round(statistics.median(v / i for v, i in zip(values, runs[ideal], strict=True)), 3)
        for name, values in runs.items()
    }
