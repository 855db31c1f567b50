"""Learns to generate images with a variational autoencoder (vae). It knows no loop, no checkpoint and no bucket."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from contract.models.recipes import VaeRecipe
from worker import zoo
from worker.datasets.dataset import Dataset
from worker.engine.generators.sampler import Sampler, quantized
from worker.engine.precision import autocast, precision_on
from worker.pictures import grid
from worker.training.data.batches import Batch, ahead, in_order, normalized, take
from worker.training.learners.fidelity import Fidelity
from worker.training.learners.protocol import At
from worker.training.optimization.average import Average
from worker.training.optimization.optimizers import decaying, optimizer_state, restore_optimizer, set_learning_rate
from worker.training.optimization.schedule import warm_cosine
from worker.training.parts import joined, part
from worker.training.randomness import reseed, seeded
from worker.zoo.vae import Vae

_LEVEL = 2 / 255  # from one of 256 levels to the next, in pixels of −1..1
_ROUNDED = _LEVEL**2 / 12  # the variance of what rounding to a level hides


class VaeLearner:
    """Learns by `VaeRecipe`: the evidence lower bound (Kingma & Welling 2014, arXiv:1312.6114), AdamW.

    Pixels are Gaussian around the decoder's image, with one variance for all, which is at each step the one that fits
    the batch best (Rybkin et al. 2021, arXiv:2006.13202, section 3.2, "optimal sigma-VAE"): as images get better it
    falls, and weighs what is left of the errors more. The weight of the KL term rises over `kl_warmup` of the steps
    (Sønderby et al. 2016, arXiv:1602.02282).

    Raises InvalidSource as `Fidelity` does, and ModelError for a size that the zoo's autoencoder cannot make.
    """

    best_by = "elbo"
    higher_is_better = True

    def __init__(self, recipe: VaeRecipe, train: Dataset, held_out: Dataset, device: torch.device) -> None:
        self._recipe = recipe
        self._classes = train.classes
        self._shape = {"classes": len(train.classes), "channels": train.channels, "size": train.size}
        self._pixels = train.channels * train.size**2
        self._held_out = held_out
        self._device = device
        self._precision = precision_on(device, recipe.precision)
        self._fidelity = Fidelity(train, held_out, seed=recipe.seed, device=device)
        reseed(recipe.seed, "weights", 0)
        self._module = cast(Vae, zoo.create("vae", **self.config())).to(device)
        self._average = Average(self._module, recipe.ema)
        self._averaged = cast(Vae, self._average.module)
        self._sampler = Sampler(self._averaged.decode, recipe.latent, recipe.seed, device, self._precision)
        weights, others = decaying(self._module)
        groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        self._pictured: list[grid.Panel] | None = None

    def learning_rate(self, at: At) -> float:
        return warm_cosine(at.step, at.steps, peak=self._recipe.learning_rate, warmup=self._recipe.warmup)

    def step(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """`reconstruction` and `kl` in nats an image, and `loss`, their weighted sum."""
        set_learning_rate(self._optimizer, self.learning_rate(at))
        errors, divergence = self._run(self._module, batch, "noise", at.step)
        reconstruction = self._nats(errors.mean())
        kl = divergence.mean()
        loss = reconstruction + _weight(at, self._recipe) * kl
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._average.update()
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    def validate(self) -> dict[str, float]:
        """`elbo`, and its parts `reconstruction` and `kl`, which it is the negative sum of, in nats an image.

        It is a lower bound of the log-probability of the 8-bit image, comparable with that of other models: the
        density of the image with uniform noise as wide as a level (Theis et al. 2016, arXiv:1511.01844, section 3.1),
        times the width of the levels. One sample of each latent, of the same noise every time; the variance of the
        pixels is the one that fits the held-out part best, one number for all of it. Then `frechet_distance` and
        `class_accuracy` of generated images; see `Fidelity`.
        """
        bound = self._bound()
        self._pictured = self._panels()
        return {**bound, **self._fidelity.measure(self._sampler)}

    def state(self) -> dict[str, Tensor]:
        return joined(
            {
                "module": self._module.state_dict(),
                "average": self._average.state(),
                "optimizer": optimizer_state(self._optimizer),
                "fidelity": self._fidelity.state(),
            }
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._module.load_state_dict(part(state, "module"))
        self._average.restore(part(state, "average"))
        restore_optimizer(self._optimizer, part(state, "optimizer"))
        self._fidelity.restore(part(state, "fidelity"))

    def export(self) -> dict[str, Tensor]:
        return self._average.export()

    def config(self) -> dict[str, int | float | str | bool]:
        return {**self._shape, "latent": self._recipe.latent}

    def picture(self) -> Image.Image | None:
        """Eight images of each class, of the same latents each time, and four held out, each before what the decoder
        makes of its latent's mean.
        """
        return None if self._pictured is None else grid.draw(self._pictured, self._classes)

    def _run(self, module: Vae, batch: Batch, purpose: str, number: int) -> tuple[Tensor, Tensor]:
        """Return the mean squared error and the KL divergence of each image, float32 [b]."""
        batch = batch.to(self._device)
        pixels = normalized(batch.pixels)
        draws = seeded(self._recipe.seed, purpose, number, self._device)
        noise = torch.randn(len(batch), self._recipe.latent, generator=draws, device=self._device)
        with autocast(self._device, self._precision):
            found, mean, log_variance = module(pixels, batch.labels, noise)
        errors = (found.float() - pixels).square().mean(dim=(1, 2, 3))
        mean, log_variance = mean.float(), log_variance.float()
        # KL divergence of N(mean, variance) from N(0, 1): Kingma & Welling 2014, appendix B.
        return errors, 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)

    @torch.inference_mode()
    def _bound(self) -> dict[str, float]:
        squares = torch.zeros((), dtype=torch.float64, device=self._device)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for number, batch in enumerate(ahead(in_order(self._held_out, self._recipe.batch_size))):
            errors, divergence = self._run(self._averaged, batch, "held out", number)
            squares += errors.double().sum()
            total += divergence.double().sum()
        n = len(self._held_out)
        reconstruction, kl = float(self._nats(squares / n)), float(total / n)
        return {"elbo": -reconstruction - kl, "reconstruction": reconstruction, "kl": kl}

    def _nats(self, error: Tensor) -> Tensor:
        """−log p of an image under the variance that fits best a mean squared error a pixel, and rounding on top."""
        return self._pixels * (0.5 * torch.log(2 * math.pi * math.e * (error + _ROUNDED)) - math.log(_LEVEL))

    @torch.inference_mode()
    def _panels(self) -> list[grid.Panel]:
        classes = range(min(len(self._classes), grid.ROWS))
        shown = []
        for label in classes:
            batch = take(self._held_out, np.flatnonzero(self._held_out.labels == label)[: grid.COLUMNS // 2])
            pixels, labels = normalized(batch.pixels).to(self._device), batch.labels.to(self._device)
            with autocast(self._device, self._precision):
                mean, _ = self._averaged.encode(pixels, labels)
                found = self._averaged.decode(mean, labels)
            shown.append(torch.stack([batch.pixels, quantized(found).cpu()], dim=1).flatten(0, 1))
        generated = self._sampler.rows(len(classes), grid.COLUMNS)
        return [grid.Panel("generated", generated), grid.Panel("held out, and reconstructed", shown)]


def _weight(at: At, recipe: VaeRecipe) -> float:
    """Return the weight of the KL term, which rises linearly to `beta` over the first `kl_warmup` of the steps."""
    rising = round(recipe.kl_warmup * at.steps)
    return recipe.beta * min(1.0, (at.step + 1) / max(rising, 1))
