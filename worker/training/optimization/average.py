"""Averaged weights: an exponential moving average over the steps, kept as a module that can be run.

It knows no optimiser and no checkpoint, only tensors by name.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_UPDATES = "updates"


class Average:
    """The moving average of a module's parameters and buffers (Polyak & Juditsky 1992).

    After update n (1-based) the decay is min(`decay`, n / (9 + n)), as in TensorFlow's ExponentialMovingAverage:
    without that warm-up the random initial weights would still weigh 37 % after 1,000 steps at 0.999. With `decay`
    0 the average is the module itself.

    Buffers are averaged too, which is what the statistics of batch norms need at the least; `norms.measuring` can
    measure them anew.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        """The averaged module, to validate and to publish; in eval mode, on the device of the original."""
        for part in self.module.modules():
            if isinstance(part, nn.RNNBase):
                part.flatten_parameters()  # a copy has weights of its own, apart, and cuDNN would join them each time
        self._decay = decay
        self._updates = 0
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        # The tensors are changed in place for as long as the module lives, so they are looked up once.
        self._averaged = [mine for mine, _ in pairs if mine.is_floating_point()]
        self._sources = [source for _, source in pairs if source.is_floating_point()]
        self._copied = [(mine, source) for mine, source in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module as it is now; call it after each step of the optimiser."""
        self._updates += 1
        decay = min(self._decay, self._updates / (9 + self._updates))
        torch._foreach_lerp_(self._averaged, [source.detach() for source in self._sources], 1.0 - decay)
        for mine, source in self._copied:  # counters, such as the batches that a norm has seen
            mine.copy_(source)

    def state(self) -> dict[str, Tensor]:
        """Return the averages by their names in the module, and `updates`, int64 []."""
        return {**self.module.state_dict(), _UPDATES: torch.tensor(self._updates)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._updates = int(state[_UPDATES])
        self.module.load_state_dict({name: tensor for name, tensor in state.items() if name != _UPDATES})

    def export(self) -> dict[str, Tensor]:
        """Return a copy of the averages to publish, on the CPU, contiguous, floats as float32."""
        return {
            name: tensor.detach()
            .to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
            .contiguous()
            for name, tensor in self.module.state_dict().items()
        }


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
