"""In what batches OpenVINO runs images that somebody waits for."""

from __future__ import annotations

import pytest

pytest.importorskip("openvino")

from worker.engine.runtimes.openvino_runtime import pieces


def test_few_places_of_a_batch_are_empty() -> None:
    found = {count: pieces(count, (1, 2, 4, 8)) for count in range(1, 9)}
    assert found == {1: [1], 2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [8], 8: [8]}


@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (8,), (1, 3, 6), (1, 2, 5, 10)])
def test_batches_hold_all_images(sizes: tuple[int, ...]) -> None:
    for count in range(1, max(sizes) + 1):
        found = pieces(count, sizes)
        assert set(found) <= set(sizes)
        assert sum(found) >= count > sum(found[:-1])
