"""The learning rate: it rises, then falls, and no step is wasted."""

from __future__ import annotations

import itertools
import math

import pytest

from worker.training.optimization.schedule import warm_cosine


def rates(steps: int, warmup: float) -> list[float]:
    return [warm_cosine(step, steps, peak=0.4, warmup=warmup) for step in range(steps)]


def test_it_rises_in_equal_amounts_and_falls_along_a_cosine() -> None:
    found = rates(100, 0.2)
    assert found[:20] == pytest.approx([0.4 * n / 20 for n in range(1, 21)])
    assert found[20] == 0.4, "the cosine begins at its top"
    assert found[60] == pytest.approx(0.2), "and is half way down in the middle"
    assert found[99] == pytest.approx(0.2 * (1 + math.cos(math.pi * 79 / 80)))
    assert all(later < earlier for earlier, later in itertools.pairwise(found[20:]))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 0.9), (2, 0.9), (7, 0.5), (1000, 0.999)])
def test_no_step_has_none_and_none_has_more_than_the_peak(steps: int, warmup: float) -> None:
    assert all(0 < rate <= 0.4 for rate in rates(steps, warmup))


def test_without_warm_up_it_begins_at_the_peak() -> None:
    assert rates(10, 0.0)[0] == 0.4
