"""Which images a reviewer sees first."""

from __future__ import annotations

import math

import pytest

from contract.backend.objects import ObjectStore
from producer.jobs.doubts import certainty_of, least_certain
from tests.producer.web.console.rows import commit_rows


def row(key: str, *scores: float) -> dict[str, object]:
    top = [{"label": f"c{n}", "label_index": n, "score": score} for n, score in enumerate(scores)]
    return {"key": key, "label": "c0", "score": scores[0], "top_k": top}


@pytest.mark.parametrize(
    ("by", "scores", "expected"),
    [
        ("margin", [0.5, 0.25], 0.25),
        ("margin", [0.5], 0.5),
        ("margin", [], 0.0),
        ("entropy", [1.0], 0.0),
        ("entropy", [0.5, 0.5], -math.log(2)),
        ("entropy", [0.5], -math.log(2)),
    ],
)
def test_certainty(by: str, scores: list[float], expected: float) -> None:
    assert certainty_of(scores, by) == pytest.approx(expected)  # type: ignore[arg-type]


def test_the_least_certain_of_all_shards_come_first(store: ObjectStore) -> None:
    # Given two shards, with a failure and two images of the same margin,
    failed = {"key": "f", "status": "error", "error_code": "truncated"}
    commit_rows(store, "job", [row("a", 0.9, 0.1), failed, row("b", 0.5, 0.4, 0.1), row("c", 0.4, 0.35)], shard=0)
    commit_rows(store, "job", [row("d", 0.5, 0.5), row("e", 0.9, 0.1), row("g", 1.0)], shard=1)
    # I expect the smallest margins first, of equals the earlier one, and no failure.
    everything = least_certain(store, "job", 10)
    assert [one.row["key"] for one in everything] == ["d", "c", "b", "a", "e", "g"]
    assert [one.row["key"] for one in least_certain(store, "job", 4)] == ["d", "c", "b", "a"]
    assert [one.shard for one in least_certain(store, "job", 2)] == [1, 0]
    # Reviewed images are left out, without a gap.
    without = {everything[0].image, everything[2].image}
    assert [one.row["key"] for one in least_certain(store, "job", 2, without=without)] == ["c", "a"]
    # By entropy, three classes nearly alike are less certain than two that are quite.
    assert [one.row["key"] for one in least_certain(store, "job", 2, by="entropy")] == ["c", "b"]
