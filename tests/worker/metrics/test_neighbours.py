"""Copies of training images are found, and new images are not taken for copies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contract.errors import InvalidInput
from worker.metrics.neighbours import Memorisation, Pair, blocks, closest, k_nearest, memorisation, nearest


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cells", [1, 100, 2**20])
def test_blocks_are_slices_of_all_distances_and_no_larger_than_allowed(cells: int) -> None:
    rows, columns = normal(31, 5, 0) + 50, normal(40, 5, 1) + 50
    expected = (rows[:, None].double() - columns[None].double()).norm(dim=2)
    seen = 0
    for part, distances in blocks(rows, columns, cells):
        assert part.start == seen and distances.shape == (part.stop - part.start, 40)
        assert distances.numel() <= max(cells, 40)
        torch.testing.assert_close(distances.double(), expected[part], rtol=1e-4, atol=1e-4)
        seen = part.stop
    assert seen == 31


def test_the_whole_matrix_never_exists() -> None:
    # The blocks of a pass are views of one buffer.
    places = {distances.data_ptr() for _, distances in blocks(normal(100, 3, 0), normal(50, 3, 1), cells=500)}
    assert len(places) == 1


@pytest.mark.parametrize("cells", [1, 700, 2**20])
def test_the_nearest_agrees_with_a_loop_over_pairs(cells: int) -> None:
    queries, training = normal(60, 6, 0), normal(200, 6, 1)
    distances, rows = nearest(queries, training, cells)
    expected = (queries[:, None] - training[None]).norm(dim=2).min(dim=1)
    assert rows.tolist() == expected.indices.tolist()
    torch.testing.assert_close(distances, expected.values)


def test_a_copy_has_distance_exactly_0() -> None:
    training = normal(500, 64, 0) * 30 + 1000
    distances, rows = nearest(training[[7, 400]], training)
    assert rows.tolist() == [7, 400]
    assert distances.tolist() == [0, 0]


def test_new_images_are_not_taken_for_copies() -> None:
    # Given generated images from the distribution of the data,
    training = normal(2000, 4, 0)
    held_out, _ = nearest(normal(2000, 4, 1), training)
    generated, _ = nearest(normal(2000, 4, 2), training)
    # I expect a share near the quantile: 100 of 2,000, within 4 standard errors of both samples.
    found = memorisation(generated, held_out, quantile=0.05)
    assert found.share == pytest.approx(0.05, abs=4 * (2 * 0.05 * 0.95 / 2000) ** 0.5)


def test_copies_are_counted() -> None:
    # Given a generator three tenths of whose images are training images, almost unchanged,
    training = normal(2000, 8, 0)
    fresh = normal(700, 8, 2)
    copied = training[:300] + 0.01 * normal(300, 8, 3)
    generated, rows = nearest(torch.cat([fresh, copied]), training)
    held_out, _ = nearest(normal(1000, 8, 1), training)
    # I expect those three tenths, and one in a hundred of the others,
    found = memorisation(generated, held_out)
    assert found.share == pytest.approx(0.307, abs=0.01)
    # and the closest pairs to be copies next to their source images.
    for pair in closest(generated, rows, 20):
        assert pair.generated - 700 == pair.training
        assert pair.distance < 0.1


def test_held_out_images_against_themselves_give_the_quantile_exactly() -> None:
    distances = torch.arange(1.0, 201.0)
    found = memorisation(distances.flip(0), distances, quantile=0.025)
    assert (found.threshold, found.share) == (6, 5 / 200), "below the threshold, not at it"
    assert (found.generated, found.held_out, found.generated_median, found.held_out_median) == (200, 200, 100, 100)
    assert Memorisation.model_validate_json(found.to_json()) == found


def test_the_closest_come_first_and_ties_keep_their_order() -> None:
    found = closest(torch.tensor([3.0, 1.0, 2.0, 1.0]), torch.tensor([10, 11, 12, 13]), 3)
    assert found == (
        Pair(generated=1, training=11, distance=1),
        Pair(generated=3, training=13, distance=1),
        Pair(generated=2, training=12, distance=2),
    )
    assert len(closest(torch.ones(2), torch.zeros(2, dtype=torch.int64), 5)) == 2


def test_too_few_held_out_images_for_a_quantile_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"99 held-out images are too few for the 0\.01 quantile; give at least 100"):
        memorisation(torch.ones(10), torch.ones(99))
    assert memorisation(torch.ones(10), torch.ones(100)).share == 0
    with pytest.raises(InvalidInput, match="no generated images"):
        memorisation(torch.ones(0), torch.ones(100))


@pytest.mark.parametrize("cells", [1, 200, 2**20])
def test_the_nearest_others_of_each_row(cells: int) -> None:
    features = normal(40, 5, 0) + 50
    distances, rows = k_nearest(features, 3, cells)
    expected = (features[:, None].double() - features[None].double()).norm(dim=2)
    expected.fill_diagonal_(float("inf"))
    found = expected.topk(3, largest=False)
    assert torch.equal(rows, found.indices)
    torch.testing.assert_close(distances.double(), found.values, rtol=1e-3, atol=1e-3)
