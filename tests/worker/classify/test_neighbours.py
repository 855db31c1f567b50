"""Images whose neighbours carry another label, and clusters, from the embeddings of a job alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from worker.classify.neighbours import clusters, compare


def rows(points: list[tuple[str, float, float]]) -> pa.Table:
    """Rows with a label and an embedding in the plane each."""
    return pa.table(
        {
            "key": [f"{n}" for n in range(len(points))],
            "uri": [f"s3://b/{n}" for n in range(len(points))],
            "label": [label for label, _, _ in points],
            "score": pa.array([0.9] * len(points), pa.float32()),
            "embedding": pa.array([[x, y] for _, x, y in points], pa.list_(pa.float32())),
            "shard": pa.array([0] * len(points), pa.int32()),
        }
    )


def around(label: str, angle: float, n: int, seed: int) -> list[tuple[str, float, float]]:
    """Points about a direction, at any distance from the origin, which does not count."""
    rng = np.random.default_rng(seed)
    angles, lengths = angle + rng.normal(0, 0.02, n), rng.uniform(0.5, 20, n)
    return [(label, float(r * np.cos(a)), float(r * np.sin(a))) for a, r in zip(angles, lengths, strict=True)]


def test_an_image_among_images_of_another_label_stands_out() -> None:
    # Given cats about one direction, dogs about another, and one dog among the cats,
    found = compare(rows([*around("cat", 0.0, 15, 0), *around("dog", 1.5, 12, 1), ("dog", 3.0, 0.01)]))
    # I expect it to have cats alone as neighbours, and the others hardly any with another label.
    share, against = found["share"].to_pylist(), found["against"].to_pylist()
    assert (share[-1], against[-1]) == (1.0, "cat")
    assert max(share[:15]) <= 0.1 + 1e-6 and max(share[15:27]) == 0.0
    # The cats are one cluster, the largest, the dogs another, and the odd one is in none.
    assert found["cluster"].to_pylist() == [0] * 15 + [1] * 12 + [None]
    assert max(found["distance"].to_pylist()) < 0.01


def test_clusters_are_of_one_label_and_of_mutual_neighbours() -> None:
    near = np.array([[1], [0], [1], [4], [3], [0]])
    assert clusters(near, np.array([0, 0, 0, 1, 0, 0])) == [0, 0, None, None, None, None]
    assert clusters(near, np.zeros(6, np.int64)) == [0, 0, None, 1, 1, None]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_images_have_no_neighbours(n: int) -> None:
    found = compare(rows([("cat", 1.0, 0.0), ("dog", 0.0, 0.0)][:n]))
    assert found.num_rows == n
    assert found["against"].to_pylist() == ([None] * n if n < 2 else ["dog", "cat"])
