"""Every random choice of a training, from a counter instead of a state that is carried on.

What is drawn follows from (seed, purpose, number) alone, so a checkpoint needs no state of a generator, and a
step draws the same whether or not the steps before it ran in this process.
"""

from __future__ import annotations

import torch

from worker.engine.seeds import derived


def seeded(seed: int, purpose: str, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one choice, as `seeded(recipe.seed, "augment", step)`.

    On `device`, so that what it draws need not be copied there; each kind of device draws its own numbers.
    """
    return torch.Generator(device).manual_seed(derived(seed, purpose, number))


def reseed(seed: int, purpose: str, number: int) -> None:
    """Seed torch's global generators of all devices, which initial weights and dropout draw from.

    They belong to the process, so a process runs one training at a time.
    """
    torch.manual_seed(derived(seed, purpose, number))
