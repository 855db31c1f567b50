"""The variational autoencoder: sizes, the noise it is given, and that it can learn."""

from __future__ import annotations

import pytest
import torch

from contract.errors import ModelError
from worker import zoo


@pytest.mark.parametrize(("channels", "size"), [(1, 4), (3, 20), (1, 36), (3, 64)])
def test_images_may_have_any_side_that_four_divides(channels: int, size: int) -> None:
    model = zoo.create("vae", classes=4, channels=channels, size=size, latent=6)
    x, y = torch.zeros(2, channels, size, size), torch.tensor([0, 3])
    reconstruction, mean, log_variance = model(x, y, torch.randn(2, 6))
    assert reconstruction.shape == x.shape
    assert mean.shape == log_variance.shape == (2, 6)


def test_the_latent_is_mean_and_noise() -> None:
    # Given an encoder that is a little sure of itself
    torch.manual_seed(1)
    model = zoo.create("vae", classes=4).eval()
    model.log_variance.bias.data.fill_(-1.0)
    x, y, noise = torch.rand(3, 1, 28, 28) * 2 - 1, torch.tensor([0, 1, 2]), torch.randn(3, 32)
    with torch.inference_mode():
        reconstruction, mean, log_variance = model(x, y, noise)
        # I expect forward to decode mean + σ · noise.
        torch.testing.assert_close((mean, log_variance), model.encode(x, y))
        torch.testing.assert_close(reconstruction, model.decode(mean + log_variance.mul(0.5).exp() * noise, y))
    assert log_variance.eq(-1).all()


def test_it_can_learn_to_copy() -> None:
    # Given eight images
    torch.manual_seed(1)
    model = zoo.create("vae", classes=2)
    x, y = torch.rand(8, 1, 7, 7).sub(0.5).sign().repeat_interleave(4, 2).repeat_interleave(4, 3), torch.arange(8) % 2
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    errors = []
    # if I train the means alone to give them back
    for _ in range(60):
        reconstruction, _, _ = model(x, y, torch.zeros(8, 32))
        error = (reconstruction - x).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    # I expect most of the error to go.
    assert errors[-1] < 0.2 * errors[0]


@pytest.mark.parametrize("size", [0, 2, 30, 27])
def test_a_size_that_four_does_not_divide_is_refused(size: int) -> None:
    with pytest.raises(ModelError, match=f"multiple of 4 pixels, not {size}\\."):
        zoo.create("vae", classes=2, size=size)
