"""Folding batch norms changes what is computed, and not what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worker import zoo
from worker.engine.programs.fold import fold_norms


@pytest.mark.parametrize(
    ("family", "config", "size"),
    [("efficientnet-lite0", {"classes": 10}, 64), ("cnn", {"classes": 10, "channels": 3, "size": 32}, 32)],
)
def test_a_folded_model_answers_the_same(family: str, config: dict[str, int], size: int) -> None:
    # Given a model whose norms have statistics and scales of their own,
    torch.manual_seed(0)
    model = zoo.create(family, **config).eval().requires_grad_(False)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(0, 0.1)
    x = torch.randn(4, 3, size, size)
    wanted = model(x)

    # if I fold them, I expect none to be left, and the same answers but for rounding.
    fold_norms(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for one, other in zip(model(x), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_norms_that_stand_alone_stay() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    fold_norms(model)
    assert [type(module) for module in model] == [nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
