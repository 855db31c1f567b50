"""Averaged weights: what they are after each update, and that they go on where they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worker.training.optimization.average import Average


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def wander(module: nn.Module, step: int) -> None:
    """Stands in for a step of training: new weights, and statistics of the norm."""
    torch.manual_seed(step)
    module(torch.randn(4, 1, 5, 5))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_it_is_the_moving_average_with_a_decay_that_warms_up() -> None:
    module = net()
    average = Average(module, 0.5)
    expected = {name: tensor.clone().double() for name, tensor in module.state_dict().items()}

    for n in range(1, 30):
        wander(module, n)
        average.update()
        decay = min(0.5, n / (9 + n))
        for name, tensor in module.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor

    found = average.module.state_dict()
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(found["1.num_batches_tracked"]) == 29, "a counter is copied"


def test_without_decay_it_is_the_module_bit_for_bit() -> None:
    module = net()
    average = Average(module, 0.0)
    for n in range(3):
        wander(module, n)
        average.update()
    assert all(torch.equal(average.module.state_dict()[name], tensor) for name, tensor in module.state_dict().items())


def test_it_goes_on_where_it_was() -> None:
    # Given an average after three updates, and its state in one that has seen another module,
    module = net()
    average = Average(module, 0.9)
    for n in range(3):
        wander(module, n)
        average.update()
    again = Average(module, 0.9)
    again.restore({name: tensor.clone() for name, tensor in average.state().items()})

    # if both go on, I expect the same, bit for bit.
    wander(module, 3)
    average.update()
    again.update()
    one, other = average.state(), again.state()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_is_run_without_being_changed() -> None:
    average = Average(net().train(), 0.9)
    before = average.export()
    assert not average.module.training
    average.module(torch.randn(4, 1, 5, 5))
    assert all(torch.equal(before[name], tensor) for name, tensor in average.export().items())
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_exported_is_a_copy_in_float32(layout: torch.memory_format) -> None:
    module = net().double().to(memory_format=layout)  # type: ignore[call-overload]
    average = Average(module, 0.0)
    exported = average.export()
    before = exported["0.weight"].clone()
    with torch.no_grad():
        module[0].weight.add_(1.0)
    average.update()
    assert {name: tensor.dtype for name, tensor in exported.items()} == {
        **dict.fromkeys(exported, torch.float32),
        "1.num_batches_tracked": torch.int64,
    }
    assert torch.equal(exported["0.weight"], before)
    assert not torch.equal(average.export()["0.weight"], before)
    assert all(tensor.is_contiguous() for tensor in exported.values())
