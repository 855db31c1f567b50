"""Distances in feature space agree with closed forms and with a loop over all pairs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from contract.errors import InvalidInput, ModelError
from worker.metrics import neighbours
from worker.metrics.distances import Distances, frechet, kid, manifold, measure


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(n: int, d: int, seed: int) -> Tensor:
    """Return points with mean exactly 0 and covariance exactly the identity."""
    points = normal(n, d, seed)
    points -= points.mean(dim=0)
    return torch.linalg.qr(points).Q * (n - 1) ** 0.5


# Fréchet


def test_the_frechet_distance_of_two_known_gaussians() -> None:
    # Given means (1, −2, 0) and (0, 0, 3), and covariances that commute, diag(1, 4, 9) and diag(4, 4, 1),
    mean, other = torch.tensor([1.0, -2, 0]), torch.tensor([0.0, 0, 3])
    real = whitened(500, 3, 0) * torch.tensor([1, 2, 3]) + mean
    generated = whitened(400, 3, 1) * torch.tensor([2, 2, 1]) + other
    # I expect |μ₁ − μ₂|² + Σ (σ₁ − σ₂)² = (1 + 4 + 9) + (1 + 0 + 4).
    assert frechet(real, generated) == pytest.approx(19.0, rel=1e-12)


def test_the_frechet_distance_of_covariances_that_do_not_commute() -> None:
    # Given Σ₁ = AᵀA and Σ₂ = I, tr (Σ₁Σ₂)^½ is the sum of the singular values of A.
    shape = torch.tensor([[2.0, 1, 0], [0, 1, -1], [0.5, 0, 3]], dtype=torch.float64)
    expected = shape.square().sum() + 3 - 2 * torch.linalg.svdvals(shape).sum()
    assert frechet(whitened(300, 3, 0) @ shape, whitened(300, 3, 1)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (10, 64), (2, 5)])
def test_a_set_has_no_frechet_distance_to_itself_even_with_a_singular_covariance(n: int, d: int) -> None:
    points = 10 + normal(n, d, 0)
    assert frechet(points, points) == pytest.approx(0, abs=1e-11)
    assert frechet(points, points.flip(0)) == pytest.approx(0, abs=1e-11)


def test_fewer_images_than_features_give_the_same_distance() -> None:
    # Given 30 points in 8 dimensions, and the same points rotated into 100 dimensions, where n < d,
    turn = torch.linalg.qr(normal(100, 8, 9)).Q.T
    real, generated = normal(30, 8, 0) * 2 + 1, normal(25, 8, 1)
    # I expect equal distances, because a rotation does not change them.
    assert frechet(real @ turn, generated @ turn) == pytest.approx(frechet(real, generated), rel=1e-10)


def test_a_large_mean_costs_no_precision() -> None:
    real, generated = normal(300, 6, 0), normal(300, 6, 1) * 1.1
    assert frechet(real + 1e6, generated + 1e6) == pytest.approx(frechet(real, generated), rel=1e-6)


def test_many_rows_are_factored_in_pieces() -> None:
    # More rows than are factored at once: the textbook's formula of one dimension.
    real, generated = normal(9000, 1, 0), 3 * normal(8500, 1, 1)
    expected = (real.mean() - generated.mean()) ** 2 + (real.std() - generated.std()) ** 2
    assert frechet(real, generated) == pytest.approx(float(expected), rel=1e-12)


# KID


def test_the_kernel_distance_agrees_with_a_loop_over_pairs() -> None:
    real, generated = normal(12, 4, 0), normal(12, 4, 1) + 0.5
    # Given one subset that holds all six rows,
    found = kid(real, generated, subsets=1, seed=3)
    generator = torch.Generator().manual_seed(3)
    x = [real[i] for i in torch.randperm(12, generator=generator)[:6]]
    y = [generated[i] for i in torch.randperm(12, generator=generator)[:6]]

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 4 + 1) ** 3)

    # I expect the means over pairs of different rows, less twice the mean over all pairs of both sets.
    within = sum(kernel(*pair) for one in (x, y) for pair in itertools.permutations(one, 2)) / 30
    across = sum(kernel(*pair) for pair in itertools.product(x, y)) / 36
    assert found.mean == pytest.approx(within - 2 * across, rel=1e-10)
    assert (found.size, found.subsets, found.std) == (6, 1, 0)


def test_the_kernel_distance_in_one_dimension_follows_from_the_moments() -> None:
    # Given N(0, 1) and N(1, 1), whose first three moments are 0, 1, 0 and 1, 2, 4, I expect, within sampling error,
    # (0 − 4)² + 3 (1 − 2)² + 3 (0 − 1)² = 22.
    found = kid(normal(40_000, 1, 0), normal(40_000, 1, 1) + 1, subsets=20)
    assert found.mean == pytest.approx(22, abs=3 * found.std / 20**0.5)
    assert found.std < 4 and found.size == 1000


def test_the_kernel_distance_is_unbiased() -> None:
    # For equal distributions the estimate is below 0 about as often as above.
    values = [kid(normal(64, 5, seed), normal(64, 5, 1000 + seed), subsets=4).mean for seed in range(40)]
    assert 8 < sum(value < 0 for value in values) < 32


def test_the_seed_alone_decides_the_subsets() -> None:
    real, generated = normal(300, 3, 0), normal(300, 3, 1)
    torch.manual_seed(1)
    first = kid(real, generated, subsets=5, size=50, seed=1)
    torch.manual_seed(2)
    assert kid(real, generated, subsets=5, size=50, seed=1) == first
    assert kid(real, generated, subsets=5, size=50, seed=2) != first
    assert first.std > 0


# Precision, recall, density, coverage


def brute(real: Tensor, generated: Tensor, k: int) -> tuple[float, float, float, float]:
    """Compute the figures as the papers write them, pair by pair."""

    def radii(points: Tensor) -> list[float]:
        return [sorted(float((p - q).norm()) for q in points)[k] for p in points]

    r, g = radii(real), radii(generated)
    far = [[float((x - y).norm()) for y in generated] for x in real]
    n, m = len(real), len(generated)
    return (
        sum(any(far[i][j] <= r[i] for i in range(n)) for j in range(m)) / m,
        sum(any(far[i][j] <= g[j] for j in range(m)) for i in range(n)) / n,
        sum(far[i][j] < r[i] for i in range(n) for j in range(m)) / (k * m),
        sum(any(far[i][j] < r[i] for j in range(m)) for i in range(n)) / n,
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("cells", [1, 37 * 7, 2**20])
def test_balls_agree_with_a_loop_over_pairs_for_any_block_size(
    k: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given sets of different sizes, far from the origin, and blocks of one row, of a few, and of all,
    monkeypatch.setattr(neighbours.blocks, "__defaults__", (cells,))
    real, generated = normal(50, 3, 0) + 100, normal(37, 3, 1) * 0.7 + 100.4
    found = manifold(real, generated, k=k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(brute(real, generated, k))
    assert 0.2 < found.recall < 1, "not a case in which all are 1"


def test_a_set_fits_itself() -> None:
    points = normal(300, 8, 0).float() * 5 + 20
    found = measure(points, points.clone())
    assert found.frechet == pytest.approx(0, abs=1e-9)
    assert abs(found.kid.mean) < 3 * found.kid.std
    shape = found.manifold
    assert (shape.precision, shape.recall, shape.density, shape.coverage) == (1, 1, 1, 1)


def test_distant_sets_share_nothing() -> None:
    found = manifold(normal(100, 4, 0), normal(80, 4, 1) + 1000)
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_a_generator_of_one_mode_is_precise_and_covers_half() -> None:
    # Given real images of two kinds and generated images of one of them,
    real = torch.cat([normal(100, 4, 0), normal(100, 4, 1) + 1000])
    found = manifold(real, normal(200, 4, 2))
    # I expect, as both papers promise, full precision, and half the recall and coverage.
    assert found.precision > 0.9
    assert 0.4 < found.recall <= 0.5 and 0.4 < found.coverage <= 0.5


def test_a_ball_of_radius_0_holds_its_centre() -> None:
    # Given one of five images many times, so that its balls have radius 0,
    five, one = torch.tensor([[0.0], [8], [-8], [16], [-16]]), torch.zeros(4, 1)
    # I expect full recall if it is generated, and full precision if it is real.
    assert manifold(five, one, k=3).recall == 0.2
    assert manifold(one, five, k=3).precision == 0.2


def test_equal_distributions_have_density_1() -> None:
    density = manifold(normal(800, 4, 0), normal(800, 4, 1)).density
    assert density == pytest.approx(1, abs=0.1)


# All of it


def test_the_record_names_what_was_compared_and_survives_json() -> None:
    found = measure(normal(60, 7, 0), normal(40, 7, 1), k=3)
    assert (found.real, found.generated, found.dimensions, found.manifold.k, found.kid.size) == (60, 40, 7, 3, 20)
    assert Distances.model_validate_json(found.to_json()) == found


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="5 generated images to compare; give at least 6"):
        measure(normal(10, 2, 0), normal(5, 2, 1))
    broken = normal(10, 2, 0)
    broken[3, 1] = torch.nan
    with pytest.raises(ModelError, match="features of 1 real images are not finite"):
        measure(broken, normal(10, 2, 1))
