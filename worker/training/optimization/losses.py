"""The losses of an epoch: left on the device as they come, read a few times a second, summed in float64.

A read waits for the device, and so would a look at every step; the sums do not depend on when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from contract.errors import TrainingDiverged
from worker.training.learners.protocol import At


class Losses:
    """Weighted means of the losses since the last `start`, and between two reads."""

    def __init__(self) -> None:
        self._waiting: list[tuple[At, int, dict[str, Tensor]]] = []
        self._sums: dict[str, list[float]] = {}  # name: [sum of loss × examples, examples]

    def start(self) -> None:
        """Forget what was read: an epoch begins."""
        self._sums = {}

    def add(self, at: At, examples: int, losses: dict[str, Tensor]) -> None:
        """Note what a step returned; nothing is waited for."""
        self._waiting.append((at, examples, losses))

    def read(self, learning_rate: float) -> dict[str, float]:
        """Wait for all that was noted since the last read; its means by name.

        Raises TrainingDiverged naming the first step whose loss is not a finite number.
        """
        waiting, self._waiting = self._waiting, []
        tensors = [loss for _, _, losses in waiting for loss in losses.values()]
        values = iter(torch.stack([tensor.float() for tensor in tensors]).tolist() if tensors else [])
        fresh: dict[str, list[float]] = {}
        for at, examples, losses in waiting:
            for name in losses:
                value = next(values)
                if not math.isfinite(value):
                    raise diverged(f"{name} is {value}", at, learning_rate)
                for sums in (self._sums, fresh):
                    entry = sums.setdefault(name, [0.0, 0.0])
                    entry[0] += value * examples
                    entry[1] += examples
        return _means(fresh)

    def means(self) -> dict[str, float]:
        """Return the means of everything read since the start."""
        return _means(self._sums)

    def state(self) -> dict[str, Any]:
        """Return what was read since the start, as JSON."""
        return {name: list(entry) for name, entry in self._sums.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._sums = {name: [float(value) for value in entry] for name, entry in state.items()}


def diverged(what: str, at: At, learning_rate: float) -> TrainingDiverged:
    """Return the error, which says where it happened and what to do."""
    return TrainingDiverged(
        f"The training diverged at step {at.step + 1:,} of {at.steps:,}, in epoch {at.epoch + 1}: {what}; nothing is "
        f"published, so train again with a lower learning rate, such as --set learning_rate={learning_rate / 3:.2g}."
    )


def _means(sums: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: total / examples for name, (total, examples) in sums.items()}
