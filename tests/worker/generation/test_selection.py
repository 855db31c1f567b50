"""Which candidates are accepted: it depends on their order and features alone, not on how they come."""

from __future__ import annotations

import numpy as np
import pytest

from worker.generation.selection import Selection, normalized


def chosen(reasons: list[str | None], features: np.ndarray, cuts: list[int], **how: object) -> Selection:
    """The selection of candidates that come in parts; `features` of all, of which those that pass are given."""
    selection = Selection(**how)  # type: ignore[arg-type]
    for start, stop in zip([0, *cuts], [*cuts, len(reasons)], strict=True):
        passing = [n for n in range(start, stop) if reasons[n] is None]
        selection.add(reasons[start:stop], features[passing] if passing else None)
    return selection


def test_the_first_that_pass_are_accepted_and_what_comes_after_is_surplus() -> None:
    features = np.eye(6, dtype=np.float32)
    found = chosen(["class", None, "score", None, None, "copy"], features, [], wanted=2, dedup=None)
    assert found.reasons == ["class", None, "score", None, "surplus", "copy"]
    assert found.accepted == 2 and found.distances == [None] * 6


def test_a_near_duplicate_of_an_accepted_one_is_rejected_but_not_of_a_rejected_one() -> None:
    # Given angles of which the second is near the first, and the third near the second but not the first,
    angles = np.radians([0, 10, 20, 180])
    features = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = chosen([None] * 4, features, [], wanted=4, dedup=1 - np.cos(np.radians(15)))

    # I expect the second to be rejected and the third, which is far enough from what was accepted, not.
    assert found.reasons == [None, "duplicate", None, None]
    assert found.distances[0] is None
    assert found.distances[1:] == pytest.approx([1 - np.cos(np.radians(a)) for a in (10, 20, 160)], abs=1e-6)


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3)).astype(np.float32)
    reasons = [None if keep else "class" for keep in rng.random(500) < 0.7]
    whole = chosen(reasons, features, [], wanted=60, dedup=0.01)
    assert {"duplicate", "surplus", "class", None} == set(whole.reasons)
    monkeypatch.setattr("worker.generation.selection._BLOCK", 7)
    for cuts in ([1], [100, 200, 300], list(range(1, 500))):
        assert chosen(reasons, features, cuts, wanted=60, dedup=0.01).reasons == whole.reasons


def test_no_two_accepted_ones_are_nearer_than_was_asked() -> None:
    features = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
    found = chosen([None] * 300, features, [150], wanted=300, dedup=0.05)
    unit = normalized(features)[[reason is None for reason in found.reasons]]
    apart = 1 - unit @ unit.T
    assert 10 < len(unit) < 300
    assert apart[~np.eye(len(unit), dtype=bool)].min() >= 0.05 - 1e-6
