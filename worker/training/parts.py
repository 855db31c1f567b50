"""Joins the states of a learner's parts under flat names that begin with the part's, and splits them again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of all parts as `<part>.<name>`."""
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part by their own names; none if the state has no such part."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
