"""`precision` says in which arithmetic the model runs: exact, or twice as fast and nearly the same."""

from __future__ import annotations

import pytest

from contract.errors import InvalidInput
from producer import Client
from tests.conftest import PHOTOS
from tests.fundamentals.conftest import Label, Rows


def test_bf16_agrees_with_fp32_where_fp32_is_sure(client: Client, label: Label, rows: Rows) -> None:
    if not any("bf16" in worker.fields.get("precisions", "") for worker in client.workers()):
        # On a machine without bf16, asking for it is refused before anything is queued.
        with pytest.raises(InvalidInput, match="--precision: no live worker computes in bf16"):
            label(PHOTOS, precision="bf16")
        return

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
