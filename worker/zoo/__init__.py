"""Builds the architecture of a family as a torch module. It knows no weights, no files and no devices.

`contract.models.families` lists the families and where each is built. A task says how a family is called, with
x float pixels as its recipe or record normalises them, n examples per batch, t frames per sequence:

    classify            model(x [n, c, h, w])                -> logits [n, classes], features [n, d]
    classify-sequence   model(x [n, t, c, h, w], lengths [n]) -> logits [n, classes], features [n, d]
    generate            model.decode(z [n, latent], y [n])   -> images [n, c, size, size] in −1..1
                        model.encode(x [n, c, h, w], y [n])  -> mean, log-variance, each [n, latent]; where it can,
                        and then its family is one of `contract.models.families.ENCODERS`

where z is standard normal and as wide as `model.latent`, y are class indices, and lengths, from 1 to
t, are the frames of each sequence that are real; both int64. Architectures are imported when one is
first asked for, so that reading a label costs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from contract.errors import ModelError
from contract.import_paths import load
from contract.models.families import FAMILIES
from contract.models.registry import Task
from contract.suggest import did_you_mean

if TYPE_CHECKING:
    from torch import nn


def families(task: Task | None = None) -> tuple[str, ...]:
    """Return the names of all families, or of the families that do `task`, sorted."""
    return tuple(sorted(name for name, family in FAMILIES.items() if task in (None, family.task)))


def task(family: str) -> Task:
    """Return the task of `family`; raises ModelError with the nearest names if there is no such family."""
    return FAMILIES[_known(family)].task


def builder(family: str) -> Callable[..., nn.Module]:
    """Return the builder of `family`, whose parameters are the config; raises ModelError as `task` does."""
    return load(FAMILIES[_known(family)].build)


def create(family: str, **config: object) -> nn.Module:
    """Return a module of `family`, built with `config`, with random weights from torch's global generator.

    Raises ModelError for an unknown family, with the nearest names, and for a config that its builder does not take.
    """
    build = builder(family)
    try:
        return build(**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"The family {family!r} cannot be built from {config}: {error}.") from error


def _known(family: str) -> str:
    if family not in FAMILIES:
        raise ModelError(f"There is no family {family!r} in the zoo; {did_you_mean(family, families())}")
    return family
