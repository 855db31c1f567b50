"""The generator and its discriminator: sizes, the class, and how weights begin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contract.errors import ModelError
from worker import zoo
from worker.zoo.gan import _spread, discriminator


@pytest.mark.parametrize(("channels", "size"), [(3, 14), (1, 28), (3, 56), (3, 112)])
def test_the_discriminator_scores_what_the_generator_makes(channels: int, size: int) -> None:
    y = torch.tensor([0, 3])
    generator = zoo.create("gan", classes=4, channels=channels, size=size, latent=16)
    images = generator(torch.randn(2, 16), y)
    assert images.shape == (2, channels, size, size)
    scores = discriminator(4, channels=channels, size=size)(images, y)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32


@pytest.mark.parametrize("minibatch_stddev", [True, False])
@pytest.mark.parametrize("spectral_norm", [True, False])
def test_gradients_reach_the_generator_and_all_of_the_discriminator(
    spectral_norm: bool, minibatch_stddev: bool
) -> None:
    torch.manual_seed(1)
    y = torch.arange(8) % 4
    generator = zoo.create("gan", classes=4)
    critic = discriminator(4, spectral_norm=spectral_norm, minibatch_stddev=minibatch_stddev)
    critic(generator(torch.randn(8, 100), y), y).square().sum().backward()
    for name, parameter in [*generator.named_parameters(), *critic.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_score_depends_on_the_class_but_not_on_images_of_another() -> None:
    torch.manual_seed(1)
    critic = discriminator(4).eval()
    images = torch.rand(3, 1, 28, 28) * 2 - 1
    with torch.inference_mode():
        scores = critic(images, torch.tensor([0, 1, 2]))
        alone = torch.cat([critic(images[i : i + 1], torch.tensor([i])) for i in range(3)])
        other = critic(images, torch.tensor([1, 2, 3]))
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-6)
    assert not torch.isclose(scores, other, rtol=1e-3).any()


def test_a_score_depends_on_how_much_the_images_of_its_class_differ() -> None:
    # Given images of two classes,
    torch.manual_seed(1)
    critic, alike = discriminator(2).eval(), discriminator(2, minibatch_stddev=False).eval()
    images, y = torch.rand(8, 1, 28, 28) * 2 - 1, torch.arange(8) % 2
    same = images.clone()
    with torch.inference_mode():
        before, before_alike = critic(images, y), alike(images, y)
        # if all but one of the first class become the same,
        same[2::2] = same[2]
        after, after_alike = critic(same, y), alike(same, y)
        both = critic(torch.cat([images, same]), y.repeat(2), sets=2)

    # I expect the scores of that class to change, of the one that is as it was, too, and those of the other not;
    assert not torch.isclose(after[0], before[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(after[1::2], before[1::2], rtol=1e-4, atol=1e-6)
    # without that sense nothing but what has changed itself;
    torch.testing.assert_close(after_alike[[0, *range(1, 8, 2)]], before_alike[[0, *range(1, 8, 2)]])
    # and of several sets each to be scored as alone.
    torch.testing.assert_close(both, torch.cat([before, after]), rtol=1e-4, atol=1e-6)


def test_the_spread_is_that_of_each_class() -> None:
    x, y = torch.randn(9, 3, 2, 2), torch.tensor([5, 0, 5, 2, 0, 5, 2, 5, 7])
    found = _spread(x, y)
    for label in y.unique():
        expected = (x[y == label].var(dim=0, correction=0) + 1e-4).sqrt()
        torch.testing.assert_close(found[y == label], expected.expand_as(x[y == label]))


def test_spectral_norm_holds_every_layer_at_one() -> None:
    # Given a discriminator whose weights are far too large, as plain steps would make them
    critic = discriminator(4)
    layers = [layer for layer in critic.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 6
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(50)
    # if it is used in training for a while
    images, y = torch.zeros(2, 1, 28, 28), torch.tensor([0, 1])
    for _ in range(30):
        critic(images, y)
    # I expect the largest singular value of each to be 1, but for what the power iteration lacks.
    critic.eval()
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)


def test_weights_begin_at_a_standard_deviation_of_a_fiftieth_and_classes_apart() -> None:
    torch.manual_seed(1)
    for model in (zoo.create("gan", classes=10), discriminator(10, spectral_norm=False)):
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), name
            elif name.startswith("norms"):
                assert parameter.std().item() == pytest.approx(1, rel=0.25), name
            else:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.25), name
                assert abs(parameter.mean().item()) < 0.005, name


@pytest.mark.parametrize("size", [0, 7, 27, 32, 42, 100])
def test_a_size_that_is_no_doubling_of_seven_is_refused(size: int) -> None:
    with pytest.raises(ModelError, match=f"14, 28, 56, 112, .* not {size}\\."):
        zoo.create("gan", classes=2, size=size)
    with pytest.raises(ModelError, match=f"not {size}\\."):
        discriminator(2, size=size)
