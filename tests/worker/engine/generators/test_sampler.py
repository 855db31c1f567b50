"""The latent of an image by its number: from its own counter, so the company that it is drawn in changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.errors import ModelError
from worker.engine.generators.latents import DeviceLatents, _philox, latent, latents, philox
from worker.engine.generators.sampler import Sampler, quantized
from worker.training.data.batches import normalized


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFF_FFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0_A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: tuple[int, ...], key: int, words: tuple[int, ...]) -> None:
    """Check against the test vectors of Random123, the authors' own code."""
    a, b, c, d = (np.array([word], np.uint64) for word in counter)
    assert tuple(int(word[0]) for word in philox((a, b, c, d), np.array([key], np.uint64))) == words
    signed = torch.from_numpy(np.array([key], np.uint64).view(np.int64))  # as a device has it
    at = tuple(torch.tensor([word]) for word in counter)
    assert tuple(int(word[0]) for word in _philox((at[0], at[1], at[2], at[3]), signed)) == words


@pytest.mark.parametrize("truncation", [None, 0.7])
@pytest.mark.parametrize("width", [1, 30, 64])
def test_a_device_draws_the_latents_of_a_cpu(width: int, truncation: float | None) -> None:
    labels, index = torch.arange(600) % 7, torch.arange(600) * (2**33 + 5) % 2**62
    draw = DeviceLatents(11, width, truncation, torch.device("cpu"))
    found = torch.cat([draw(labels[:64], index[:64]), draw(labels[64:], index[64:])])
    wanted = latents(11, labels, index, width, truncation)
    assert found.shape == wanted.shape
    assert found.dtype == torch.float32
    # The words are the same; two libraries of mathematics may differ in the last bit of what they make of one.
    assert (found != wanted).float().mean() < 1e-3
    assert torch.allclose(found, wanted, rtol=3e-7, atol=1e-9)


def test_a_sampler_makes_its_latents_where_it_decodes() -> None:
    # Given a device that is not the CPU, as torch's `meta` is one that computes nothing,
    sampler = Sampler(lambda z, y: z, 4, 0, torch.device("meta"), "fp32")
    z = sampler._draw()(torch.tensor([1, 2]), torch.tensor([3, 4]))
    assert (z.device.type, tuple(z.shape), z.dtype) == ("meta", (2, 4), torch.float32)


@pytest.mark.parametrize("width", [1, 3, 32, 100])
def test_a_latent_is_the_same_alone_and_in_any_company(width: int) -> None:
    # Given images of several classes, in no order, one of them twice,
    labels = torch.tensor([2, 0, 1, 0, 2, 2] * 50)
    index = torch.tensor([7, 0, 3, 2**40, 8, 7] * 50)
    together = latents(5, labels, index, width)

    # I expect of each what it is alone, bit for bit, and in a smaller batch.
    assert together.shape == (300, width) and together.dtype == torch.float32
    for place in range(6):
        assert torch.equal(together[place], latent(5, int(labels[place]), int(index[place]), width))
    assert torch.equal(together[3:], latents(5, labels[3:], index[3:], width))


def test_seed_class_and_number_each_make_another_latent() -> None:
    found = [latent(*one, 8) for one in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0), (1, 2, 3 + 2**32), (1, 3, 2))]
    assert len({tuple(one.tolist()) for one in found}) == len(found)


def test_a_narrow_latent_begins_a_wider_one() -> None:
    assert torch.equal(latent(0, 1, 2, 100)[:30], latent(0, 1, 2, 30))


def test_latents_are_standard_normal_and_independent() -> None:
    n = 20_000
    drawn = latents(0, torch.arange(n) % 10, torch.arange(n) // 10, 12).double()
    quantiles = torch.tensor([0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999], dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
    assert torch.allclose(drawn.flatten().quantile(quantiles), expected, atol=0.02)

    # Neither the numbers of a latent, nor those of neighbours, nor their squares, go together.
    for values in (drawn, drawn.square()):
        pairs = torch.cat([values, values.roll(1, 0), values.roll(10, 0)], dim=1)
        correlated = torch.corrcoef(pairs.T) - torch.eye(36)
        assert float(correlated.abs().max()) < 5 / n**0.5


@pytest.mark.parametrize("truncation", [0.3, 2.0])
def test_a_truncated_latent_goes_nowhere_beyond(truncation: float) -> None:
    # Given many latents, I expect none beyond, and in between what is left of a normal distribution.
    drawn = latents(0, torch.arange(20_000) % 10, torch.arange(20_000), 6, truncation)
    assert drawn.abs().max() <= truncation
    normal = torch.distributions.Normal(0.0, 1.0)
    low = normal.cdf(torch.tensor(-truncation))
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    assert torch.allclose(drawn.flatten().quantile(at), normal.icdf(low + at * (1 - 2 * low)), atol=0.02)
    assert torch.equal(drawn[7:9], latents(0, torch.tensor([7, 8]), torch.tensor([7, 8]), 6, truncation))


def _painted(z: Tensor, y: Tensor) -> Tensor:
    """An image of one pixel a number of the latent, brighter with the class."""
    return torch.tanh(z + y[:, None])[:, None, None, :]


def test_images_do_not_depend_on_what_is_generated_beside_them() -> None:
    # Given more images than are decoded at once,
    sampler = Sampler(_painted, 4, seed=3, device=torch.device("cpu"), precision="fp32")
    labels, index = torch.arange(600) % 3, torch.arange(600) // 3
    images = sampler.images(labels, index)

    # I expect of each, 8-bit, what its latent and class alone make.
    assert images.shape == (600, 1, 1, 4) and images.dtype == torch.uint8
    for place in (0, 255, 256, 599):
        z = latent(3, place % 3, place // 3, 4)
        assert torch.equal(images[place], quantized(_painted(z[None], labels[place : place + 1]))[0])


def test_rows_are_the_first_images_of_each_class() -> None:
    sampler = Sampler(_painted, 4, seed=3, device=torch.device("cpu"), precision="fp32")
    rows = sampler.rows(3, 5)
    assert [row.shape for row in rows] == [(5, 1, 1, 4)] * 3
    assert torch.equal(rows[2], sampler.images(torch.full((5,), 2), torch.arange(5)))


def test_images_that_are_not_finite_are_not_hidden_by_rounding() -> None:
    sampler = Sampler(lambda z, y: _painted(z, y) / 0.0 * 0.0, 4, seed=3, device=torch.device("cpu"), precision="fp32")
    with pytest.raises(ModelError, match="lower learning rate"):
        sampler.rows(3, 5)


def test_quantised_images_are_what_normalised_ones_were() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(quantized(normalized(levels)), levels)
    assert quantized(torch.tensor([-9.0, 9.0])).tolist() == [0, 255], "what lies beyond is cut off"
