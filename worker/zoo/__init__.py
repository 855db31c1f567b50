"""The registry of architectures: a family's name to the torch module behind it.

It knows no weights, no files and no devices. A family joins by a decorator:

    @register("efficientnet-lite0")
    class EfficientNetLite0(nn.Module): ...

Architectures are imported when one is first asked for, so that reading a label costs no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from contract.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    Build = TypeVar("Build", bound=Callable[..., nn.Module])

_MODULES = ("efficientnet_lite",)
_FAMILIES: dict[str, Callable[..., nn.Module]] = {}


def register(family: str) -> Callable[[Build], Build]:
    """Enter the class or function under it as the builder of `family`."""

    def enter(build: Build) -> Build:
        if family in _FAMILIES:
            raise ValueError(f"The family {family!r} is registered twice; give one of them another name.")
        _FAMILIES[family] = build
        return build

    return enter


def families() -> tuple[str, ...]:
    """The names of all families, sorted."""
    for module in _MODULES:
        import_module(f"{__name__}.{module}")
    return tuple(sorted(_FAMILIES))


def create(family: str, **config: object) -> nn.Module:
    """A module of `family` with random weights; `config` goes to its builder.

    Raises ModelError, with the nearest names, for a family that is not there and for a config that
    its builder does not take.
    """
    known = families()
    if family not in known:
        near = difflib.get_close_matches(family, known, n=3, cutoff=0.4) or known
        raise ModelError(f"There is no family {family!r} in the zoo; the nearest are {', '.join(near)}.")
    try:
        return _FAMILIES[family](**config)
    except TypeError as error:
        raise ModelError(f"The family {family!r} cannot be built from {config}: {error}.") from error
