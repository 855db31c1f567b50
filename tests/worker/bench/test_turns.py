"""Steps run by turns, and ratios are of what ran in the same turn."""

from __future__ import annotations

from collections.abc import Callable

from worker.bench.turns import in_turn, ratios


def test_steps_run_by_turns_after_a_warm_up() -> None:
    # Given two steps, and shorter ones to warm up,
    ran: list[str] = []

    def step(name: str) -> Callable[[], float]:
        def run() -> float:
            ran.append(name)
            return float(len(ran))

        return run

    runs = in_turn({"a": step("a"), "b": step("b")}, 2, warm_up={"a": step("few a"), "b": step("few b")})

    # I expect figures of the steps alone.
    assert ran == ["few a", "few b", "a", "b", "a", "b"]
    assert runs == {"a": [3.0, 5.0], "b": [4.0, 6.0]}

    # Without shorter ones, each warms up itself.
    ran.clear()
    assert in_turn({"a": step("a")}, 1) == {"a": [2.0]}
    assert ran == ["a", "a"]


def test_a_ratio_is_of_the_same_turn() -> None:
    # Given a machine that is half as fast in the second turn, I expect a ratio that does not know of it.
    assert ratios({"ideal": [100.0, 50.0, 100.0], "product": [90.0, 45.0, 80.0]}, "ideal") == {
        "ideal": 1.0,
        "product": 0.9,
    }
