"""Begins a training with the weights of a model that is there. It knows no family."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from contract.errors import ModelError
from worker.training.learners.protocol import Learner

_PARTS = ("module", "generator", "average")
"""The parts of a learner's state that hold the published weights, by their published names."""


def begin_with(learner: Learner, weights: Mapping[str, Tensor]) -> int:
    """Let a fresh learner begin with every one of these weights whose name and shape fit; how many do.

    What does not fit, such as the last layer where the classes are others, begins at random. Raises ModelError where
    nothing fits.
    """
    taken: set[str] = set()

    def begun(key: str, fresh: Tensor) -> Tensor:
        part, _, name = key.partition(".")
        found = weights.get(name)
        if part not in _PARTS or found is None or found.shape != fresh.shape:
            return fresh
        taken.add(name)
        return found.to(fresh)

    state = {key: begun(key, fresh) for key, fresh in learner.state().items()}
    if not taken:
        raise ModelError("None of the weights to begin with fits the model; begin without --from.")
    learner.restore(state)
    return len(taken)
