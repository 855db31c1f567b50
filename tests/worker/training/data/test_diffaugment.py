"""DiffAugment: each policy does what the paper says, and lets the gradient through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from contract.errors import InvalidSettings
from worker.training.data.diffaugment import augmented, color, cutout, policies, translation
from worker.training.randomness import seeded

ALL = ("color", "translation", "cutout")


def images(b: int = 200, c: int = 3, side: int = 16) -> Tensor:
    """Within 0.1 to 1, so that what an augmentation sets to 0 can be told from what was there."""
    return torch.rand((b, c, side, side), generator=seeded(0, "images", 0)) * 0.9 + 0.1


@pytest.mark.parametrize("names", [(), *((name,) for name in ALL), ALL], ids="+".join)
@pytest.mark.parametrize("c", [1, 3])
def test_an_augmentation_follows_from_its_generator(names: tuple[str, ...], c: int) -> None:
    before = images(c=c)
    one, same, other = (augmented(before, names, seeded(0, "augment", step)) for step in (1, 1, 2))
    assert one.shape == before.shape and one.dtype == before.dtype
    assert torch.equal(one, same)
    assert torch.equal(one, other) == (names == ())
    assert torch.equal(before, images(c=c)), "what came in is left alone"


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_is_that_of_the_same_change(name: str) -> None:
    before = images(b=2, side=8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, (name,), seeded(0, "augment", 0)), before)


@pytest.mark.parametrize("side", [16, 28])
def test_translation_moves_by_at_most_an_eighth_and_fills_with_zeros(side: int) -> None:
    reach = side // 8
    before = images(side=side)
    padded = functional.pad(before, (reach,) * 4)
    places = range(2 * reach + 1)

    found = set()
    for one, around in zip(translation(before, seeded(0, "augment", 0)), padded, strict=True):
        at = [(y, x) for y in places for x in places if torch.equal(one, around[:, y : y + side, x : x + side])]
        assert len(at) == 1
        found.add(at[0])

    assert {y for y, _ in found} == {x for _, x in found} == set(places), "all shifts happen, along both axes"
    assert any(y != x for y, x in found), "and each axis draws its own"


def test_cutout_sets_a_square_of_half_the_side_to_zero() -> None:
    before = images()
    after = cutout(before, seeded(0, "augment", 0))

    whole = 0
    for one, was in zip(after, before, strict=True):
        gone = (one == 0).all(dim=0)
        rows, columns = gone.any(dim=1), gone.any(dim=0)
        assert torch.equal(gone, rows[:, None] & columns), "a rectangle,"
        for axis in (rows, columns):
            places = axis.nonzero().flatten().tolist()
            assert places == list(range(places[0], places[0] + len(places))), "without gaps,"
            assert len(places) == 8 or 0 in places or 15 in places, "of half the side, less where it meets an edge"
        assert torch.equal(one, torch.where(gone, torch.zeros(()), was)), "and nothing else changes"
        whole += int(gone.sum()) == 64
    assert 30 < whole < 90, "the middle is anywhere, so that of 17 × 17 places 9 × 9 leave it whole"


def test_color_changes_brightness_saturation_and_contrast() -> None:
    before = images(b=2000, side=4)
    after = color(before, seeded(0, "augment", 0))

    # Brightness moves the mean of an image, by −0.5 to 0.5; the other two leave it where it is.
    moved = after.mean(dim=(1, 2, 3)) - before.mean(dim=(1, 2, 3))
    assert -0.5 <= float(moved.min()) < -0.48 and 0.48 < float(moved.max()) <= 0.5

    # Contrast stretches the gray picture about that mean, saturation and contrast the colours about the gray one.
    def spreads(x: Tensor) -> tuple[Tensor, Tensor]:
        gray = x.mean(dim=1, keepdim=True)
        return gray.std(dim=(1, 2, 3)), (x - gray).std(dim=(1, 2, 3))

    contrast, both = (a / b for a, b in zip(spreads(after), spreads(before), strict=True))
    saturation = both / contrast
    assert 0.5 <= float(contrast.min()) + 1e-4 < 0.52 and 1.48 < float(contrast.max()) <= 1.5 + 1e-4
    assert 0.0 <= float(saturation.min()) < 0.02 and 1.98 < float(saturation.max()) <= 2 + 1e-4


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), ("cutout", ("cutout",)), (" color, translation,cutout ,", ALL)],
)
def test_policies_are_named_in_one_setting(text: str, names: tuple[str, ...]) -> None:
    assert policies(text) == names


def test_a_policy_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidSettings, match="no 'colour'; take any of color,translation,cutout"):
        policies("translation,colour")
