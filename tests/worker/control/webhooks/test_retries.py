"""When a message is sent again: the schedule of Standard Webhooks, longer if the receiver asks, never shorter."""

from __future__ import annotations

import pytest

from worker.control.webhooks.retries import DELAYS, early_delay, next_delay, pause, probe_delay


def test_ten_attempts_span_three_days() -> None:
    assert len(DELAYS) == 9
    assert 3 * 86_400 <= sum(DELAYS) <= 4 * 86_400
    for attempts, delay in enumerate(DELAYS, 1):
        found = [next_delay(attempts) for _ in range(50)]
        assert all(one is not None and delay <= one <= 1.1 * delay for one in found)
        assert len(set(found)) > 1
    assert next_delay(10) is None


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(0, 5, 5.5), (1, 5, 5.5), (60, 60, 60), (10**9, 86_400, 86_400), (-5, 5, 5.5)]
)
def test_a_receiver_may_ask_for_more_time_and_not_for_less(asked: float, least: float, most: float) -> None:
    found = next_delay(1, asked)
    assert found is not None
    assert least <= found <= most


def test_a_pause_grows_to_half_a_minute() -> None:
    assert 1 <= pause(1) <= 1.1
    assert 4 <= pause(3) <= 4.4
    assert pause(1000) <= 33
    assert 30 <= pause(1, asked=10**9) <= 33


def test_early_attempts_that_fail_follow_the_schedule() -> None:
    assert [early_delay(failed) for failed in (0, 1, 2, 8, 100)] == [5, 300, 1800, 86_400, 86_400]


def test_a_probe_waits_for_a_tenth_of_what_the_schedule_took_whatever_the_age_of_its_message() -> None:
    assert [probe_delay(attempts) for attempts in (0, 1, 3, 4, 9)] == [60, 60, 60, 210.5, 18_570.5]
