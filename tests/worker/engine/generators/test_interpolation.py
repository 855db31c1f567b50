"""Points on the way from one latent to another."""

from __future__ import annotations

import pytest
import torch

from worker.engine.generators.interpolation import spherical

POSITIONS = torch.linspace(0, 1, 7)


def test_the_ends_are_the_latents_and_the_steps_are_equal_angles() -> None:
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    way = spherical(a, b, POSITIONS)
    assert way.dtype == torch.float32
    torch.testing.assert_close(way[0], a)
    torch.testing.assert_close(way[-1], b)
    torch.testing.assert_close(way.norm(dim=1), torch.full((7,), 2.0))  # the straight way is 0.7 times as long midway
    angles = torch.atan2(way[:, 1], way[:, 0])
    torch.testing.assert_close(angles, POSITIONS * torch.pi / 2)


def test_a_point_depends_on_its_position_alone() -> None:
    a, b = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    whole = spherical(a, b, POSITIONS)
    torch.testing.assert_close(spherical(a, b, POSITIONS[3:5]), whole[3:5], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0, 2.0], [2.0, 4.0]), ([1.0, 0.0], [-1.0, 0.0]), ([0.0, 0.0], [1.0, 0.0]), ([0.5, 1.0], [0.5, 1.0])],
    ids=["parallel", "opposite", "from zero", "the same"],
)
def test_where_there_is_no_arc_the_way_is_straight(a: list[float], b: list[float]) -> None:
    first, second = torch.tensor(a), torch.tensor(b)
    straight = first + POSITIONS[:, None] * (second - first)
    torch.testing.assert_close(spherical(first, second, POSITIONS), straight)
