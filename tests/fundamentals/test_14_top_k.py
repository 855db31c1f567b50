"""`top_k` says how many labels a row carries, the likeliest first."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import InvalidInput
from producer import Client
from tests.fundamentals.conftest import MODEL, Label, Rows


@pytest.mark.parametrize("k", [1, 3, 1000])
def test_the_likeliest_first(label: Label, rows: Rows, client: Client, folder: Path, k: int) -> None:
    row = rows(label(folder, top_k=k))["koala.jpg"]

    top, names = row["top_k"], client.model(MODEL).labels
    assert len(top) == k
    assert top[0] == {name: row[name] for name in ("label", "label_index", "score")}
    scores = [choice["score"] for choice in top]
    assert scores == sorted(scores, reverse=True)
    assert all(choice["label"] == names[choice["label_index"]] for choice in top)
    assert len({choice["label_index"] for choice in top}) == k
    # They are probabilities: all thousand together are certain.
    assert sum(scores) == pytest.approx(1.0, abs=1e-3) if k == 1000 else sum(scores) <= 1.0


def test_none_at_all_is_refused(client: Client, folder: Path) -> None:
    with pytest.raises(InvalidInput, match="--top-k 0: should be greater than or equal to 1"):
        client.classify(folder, model=MODEL, top_k=0)
