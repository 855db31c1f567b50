"""Mirror, shift, erase: each against the same done by hand to one image at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from worker.training.data.augment import crop, erase, flip
from worker.training.randomness import seeded


def pixels(b: int = 64, c: int = 3, side: int = 9) -> Tensor:
    """uint8 [b, c, side, side], channels last, no two values of an image the same."""
    values = torch.randperm(c * side * side, generator=seeded(0, "pixels", 0))[: c * side * side].to(torch.uint8)
    return values.view(1, side, side, c).repeat(b, 1, 1, 1).movedim(3, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, g: flip(x, g),
        lambda x, g: crop(x, 2, g),
        lambda x, g: erase(x, 0.5, g, value=0),
    ],
    ids=["flip", "crop", "erase"],
)
def test_a_change_follows_from_its_generator(change: object) -> None:
    before = pixels()
    one, same, other = (change(before, seeded(0, "augment", step)) for step in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, pixels()), "what came in is left alone"
    assert one.dtype == torch.uint8 and one.is_contiguous(memory_format=torch.channels_last)


def test_about_half_of_the_images_are_mirrored() -> None:
    before = pixels(400)
    after = flip(before, seeded(0, "augment", 0))
    mirrored = [torch.equal(one, was.flip(-1)) for one, was in zip(after, before, strict=True)]
    kept = [torch.equal(one, was) for one, was in zip(after, before, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize("margin", [1, 3])
def test_a_shifted_image_is_a_crop_of_the_reflected_one(margin: int) -> None:
    before = pixels()
    padded = functional.pad(before.float(), (margin,) * 4, mode="reflect").to(torch.uint8)
    places = range(2 * margin + 1)

    found = set()
    for one, around in zip(crop(before, margin, seeded(0, "augment", 0)), padded, strict=True):
        at = [(y, x) for y in places for x in places if torch.equal(one, around[:, y : y + 9, x : x + 9])]
        assert len(at) == 1
        found.add(at[0])

    assert {y for y, _ in found} == {x for _, x in found} == set(places), "all shifts happen, along both axes"
    assert any(y != x for y, x in found), "and each axis draws its own"


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_shift_may_be_wider_than_the_image(side: int) -> None:
    before = pixels(side=side)
    after = crop(before, 50, seeded(0, "augment", 0))
    assert after.shape == before.shape
    assert set(after.flatten().tolist()) <= set(before.flatten().tolist())


def test_a_rectangle_is_erased_in_a_share_of_the_images() -> None:
    before = torch.ones(600, 2, 32, 32)
    after = erase(before, 0.25, seeded(0, "augment", 0), value=-1.0)

    gone = after < 0
    assert (gone[:, 0] == gone[:, 1]).all(), "all channels alike"
    areas, centres = [], []
    for one in gone[:, 0]:
        if one.any():
            rows, columns = (one.any(axis).nonzero().flatten() for axis in (1, 0))
            assert int(one.sum()) == len(rows) * len(columns), "it is a rectangle"
            areas.append(int(one.sum()) / 32**2)
            centres.append(float(rows.float().mean()))
    assert 110 < len(areas) < 190
    assert 0.01 < min(areas) < 0.05 and 0.25 < max(areas) < 0.36
    assert min(centres) < 6 and max(centres) > 25, "anywhere"


def test_nothing_is_erased_where_nothing_is_to_be() -> None:
    before = pixels()
    assert torch.equal(erase(before, 0.0, seeded(0, "augment", 0), value=0), before)
