"""Optimisers: which weights decay, and that their state goes on in another process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from worker.training.optimization.optimizers import decaying, optimizer_state, restore_optimizer, set_learning_rate


def net() -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3)
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2), nn.Linear(2, 1))


def test_biases_and_norms_do_not_decay() -> None:
    module = net()
    found, others = decaying(module)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert [names[id(parameter)] for parameter in found] == ["0.weight", "3.weight", "4.weight"]
    assert len(others) == 5


@pytest.mark.parametrize(
    "make",
    [lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True), lambda p: AdamW(p, 0.1), lambda p: SGD(p, 0.1)],
    ids=["momentum", "adamw", "none"],
)
def test_an_optimizer_goes_on_where_it_was(make: Callable[[object], Optimizer]) -> None:
    def step(module: nn.Sequential, optimizer: Optimizer, number: int) -> None:
        torch.manual_seed(number)
        optimizer.zero_grad()
        module[:4](torch.randn(4, 3, 4, 4)).square().sum().backward()  # the last layer never has a gradient
        optimizer.step()

    # Given three steps, and their state in a fresh optimiser,
    module = net()
    optimizer = make(module.parameters())
    for number in range(3):
        step(module, optimizer, number)
    again = net()
    again.load_state_dict(module.state_dict())
    other = make(again.parameters())
    kept = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in optimizer_state(optimizer).items()
    }
    restore_optimizer(other, kept)

    # if both go on, I expect the same weights, bit for bit,
    step(module, optimizer, 3)
    step(again, other, 3)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))

    # and a state that is laid out in memory as the weights are.
    for parameter, state in other.state.items():
        for name, tensor in state.items():
            if tensor.shape == parameter.shape:
                assert tensor.stride() == parameter.stride(), name


def test_all_groups_learn_at_the_same_rate() -> None:
    module = net()
    optimizer = SGD([{"params": [p]} for p in module.parameters()], 0.1)
    set_learning_rate(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
