"""A learner's state from the states of its parts, and back: flat names that begin with the part's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of all parts as `<part>.<name>`."""
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one part by their own names; none where the state has no such part."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
