"""The protocol of a learner: what the training loop needs of a model that learns. It knows no family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from worker.training.data.batches import Batch

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class At:
    """Where a step stands: `step` of `steps` over the whole training, in `epoch`; both 0-based."""

    step: int
    steps: int
    epoch: int


class Learner(Protocol):
    """A model in training. What a step does follows from `state`, the batch and `At`, and from nothing else.

    `best_by` is the metric of `validate` by which the best epoch is chosen.
    """

    best_by: str
    higher_is_better: bool

    def step(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """Take one optimiser step; return its losses by name, each a detached scalar that is not waited for."""
        ...

    def learning_rate(self, at: At) -> float:
        """Return the learning rate of `step` there."""
        ...

    def validate(self) -> dict[str, float]:
        """Metrics on the held-out part, with the averaged weights."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, by flat names; the tensors may be the live ones."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned, in this process or in another."""
        ...

    def export(self) -> dict[str, Tensor]:
        """Return a copy of the weights to publish: averaged, float32, on the CPU, contiguous."""
        ...

    def config(self) -> dict[str, int | float | str | bool]:
        """Return the arguments of `zoo.create` for the module of these weights."""
        ...

    def picture(self) -> Image.Image | None:
        """Return a picture of the last `validate`, a confusion matrix or a grid of samples; None before it."""
        ...
