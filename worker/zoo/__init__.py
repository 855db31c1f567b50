"""The registry of architectures: a family's name to the torch module behind it, and to its task.

It knows no weights, no files and no devices. A family joins by a decorator:

    @register("efficientnet-lite0", task="classify")
    class EfficientNetLite0(nn.Module): ...

A task says what a family can be asked, with x float pixels as its recipe or record normalises them,
n examples a batch, t frames a sequence:

    classify            model(x [n, c, h, w])                -> logits [n, classes], features [n, d]
    classify-sequence   model(x [n, t, c, h, w], lengths [n]) -> logits [n, classes], features [n, d]
    generate            model.decode(z [n, latent], y [n])   -> images [n, c, size, size] in −1..1
                        model.encode(x [n, c, h, w], y [n])  -> mean, log-variance, each [n, latent]; where it can,
                        and then its family is one of `contract.models.registry.ENCODERS`

where z is standard normal and as wide as `model.latent`, y are class indices, and lengths, from 1 to
t, are the frames of each sequence that are real; both int64. Architectures are imported when one is
first asked for, so that reading a label costs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypeVar

from contract.errors import ModelError
from contract.suggest import did_you_mean

if TYPE_CHECKING:
    from torch import nn

    Build = TypeVar("Build", bound=Callable[..., nn.Module])

Task = Literal["classify", "classify-sequence", "generate"]

_MODULES = ("cnn", "efficientnet_lite", "gan", "rnn", "vae")
_BUILDERS: dict[str, Callable[..., nn.Module]] = {}
_TASKS: dict[str, Task] = {}


def register(family: str, *, task: Task) -> Callable[[Build], Build]:
    """Enter the class or function under it as the builder of `family`, which does `task`."""

    def enter(build: Build) -> Build:
        if family in _BUILDERS:
            raise ValueError(f"The family {family!r} is registered twice; give one of them another name.")
        _BUILDERS[family], _TASKS[family] = build, task
        return build

    return enter


def families(task: Task | None = None) -> tuple[str, ...]:
    """Return the names of all families, or of the families that do `task`, sorted."""
    for module in _MODULES:
        import_module(f"{__name__}.{module}")
    return tuple(sorted(family for family in _BUILDERS if task in (None, _TASKS[family])))


def task(family: str) -> Task:
    """Return the task of `family`; raises ModelError with the nearest names if there is no such family."""
    return _TASKS[_known(family)]


def builder(family: str) -> Callable[..., nn.Module]:
    """Return the builder of `family`, whose parameters are the config; raises ModelError as `task` does."""
    return _BUILDERS[_known(family)]


def create(family: str, **config: object) -> nn.Module:
    """A module of `family` with random weights, from torch's global generator; `config` goes to its builder.

    Raises ModelError, with the nearest names, for a family that is not there and for a config that
    its builder does not take.
    """
    build = builder(family)
    try:
        return build(**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"The family {family!r} cannot be built from {config}: {error}.") from error


def _known(family: str) -> str:
    known = families()
    if family not in known:
        raise ModelError(f"There is no family {family!r} in the zoo; {did_you_mean(family, known)}")
    return family
