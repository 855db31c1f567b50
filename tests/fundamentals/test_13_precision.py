"""`precision` says in which arithmetic the model runs: exact, or twice as fast and nearly the same."""

from __future__ import annotations

from tests.conftest import PHOTOS
from tests.fundamentals.conftest import Label, Rows


def test_bf16_agrees_with_fp32_where_fp32_is_sure(label: Label, rows: Rows) -> None:
    exact, fast = rows(label(PHOTOS, precision="fp32")), rows(label(PHOTOS, precision="bf16"))

    sure = {key: row["label"] for key, row in exact.items() if row["score"] > 0.5}
    assert len(sure) > 25
    assert {key: fast[key]["label"] for key in sure} == sure
    assert max(abs(exact[key]["score"] - fast[key]["score"]) for key in exact) < 0.1


def test_fp32_twice_is_the_same_twice(label: Label, rows: Rows) -> None:
    once, twice = rows(label(PHOTOS, precision="fp32")), rows(label(PHOTOS, precision="fp32", shard_size=7))

    # Another size of shard makes other batches: the labels do not depend on who one's neighbours are.
    assert {k: row["label"] for k, row in once.items()} == {k: row["label"] for k, row in twice.items()}
    assert max(abs(once[key]["score"] - twice[key]["score"]) for key in once) < 1e-4
