"""The classifiers of small images: which sizes they take, and what they cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from contract.errors import ModelError
from worker import zoo

VARIANTS = ("residual", "classic")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 33), (3, 64)])
def test_images_may_have_any_size(variant: str, channels: int, size: int) -> None:
    model = zoo.create("cnn", classes=5, channels=channels, size=size, variant=variant).eval()
    logits, features = model(torch.zeros(2, channels, size, size))
    assert logits.shape == (2, 5)
    assert features.shape == (2, 1024 if variant == "classic" else 192)


def test_the_classic_one_takes_tiny_images() -> None:
    logits, _ = zoo.create("cnn", classes=5, size=8, variant="classic").eval()(torch.zeros(2, 1, 8, 8))
    assert logits.shape == (2, 5)


def test_the_residual_one_costs_what_two_cores_can_pay() -> None:
    model = zoo.create("cnn", classes=10).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 28, 28))
    assert 15e6 < counter.get_total_flops() / 2 < 30e6  # a multiply-add is two


@pytest.mark.parametrize("variant", VARIANTS)
def test_variance_neither_fades_nor_grows_at_the_start(variant: str) -> None:
    torch.manual_seed(1)
    model = zoo.create("cnn", classes=10, variant=variant).train()
    stds: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _module, _inputs, output: stds.append(output.detach().std().item()))
    model(torch.randn(64, 1, 28, 28))
    assert all(0.2 < std < 5 for std in stds), stds


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"variant": "huge"}, "no variant 'huge'; there are residual and classic"),
        ({"size": 15}, "16×16 pixels and more, not 15×15"),
        ({"size": 7, "variant": "classic"}, "8×8 pixels and more, not 7×7"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        zoo.create("cnn", classes=2, **config)
