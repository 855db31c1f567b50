"""When a worker hands back what is left, and when it ends: pure arithmetic on the grace of its platform."""

from __future__ import annotations

import pytest

from worker.process.leaving import end_after, hand_back_after


@pytest.mark.parametrize(
    ("grace", "hand_back", "end"),
    [(600.0, 585.0, 597.0), (60.0, 45.0, 57.0), (30.0, 15.0, 27.0), (10.0, 5.0, 9.0), (1.0, 0.5, 0.9)],
)
def test_shards_are_handed_back_fifteen_seconds_before_the_end_or_halfway(
    grace: float, hand_back: float, end: float
) -> None:
    assert hand_back_after(grace) == pytest.approx(hand_back)
    assert end_after(grace) == pytest.approx(end)
    assert hand_back_after(grace) < end_after(grace) < grace
