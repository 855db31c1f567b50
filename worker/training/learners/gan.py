"""Learns to generate images, by a generator and a discriminator (gan). It knows no loop, no checkpoint, no bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from contract.models.recipes import GanRecipe
from worker import zoo
from worker.datasets.dataset import Dataset
from worker.engine.generators.sampler import Sampler
from worker.engine.precision import autocast, precision_on
from worker.pictures import grid
from worker.training.data import diffaugment
from worker.training.data.batches import Batch, normalized
from worker.training.learners.fidelity import Fidelity
from worker.training.learners.protocol import At
from worker.training.optimization.average import Average
from worker.training.optimization.optimizers import decaying, optimizer_state, restore_optimizer, set_learning_rate
from worker.training.parts import joined, part
from worker.training.randomness import reseed, seeded
from worker.zoo.gan import Generator, discriminator


class GanLearner:
    """Learns by `GanRecipe`: hinge loss (Lim & Ye 2017, arXiv:1705.02894) or binary cross-entropy, AdamW.

    A step is `discriminator_steps` steps of the discriminator, each on the whole batch, augmented anew, against as
    many new images of its classes, and then one step of the generator by the images that the discriminator saw last,
    as in the reference code of DCGAN: to generate others would cost a ninth more multiply-adds. The two learn at
    rates of their own (Heusel et al. 2017, arXiv:1706.08500). What is validated, pictured and published is
    the average of the generator (Yazıcı et al. 2019, arXiv:1806.04498).

    Raises InvalidSource as `Fidelity` does, InvalidSettings for an augmentation that is not there, and ModelError for
    a size that the zoo's generator cannot make.
    """

    best_by = "frechet_distance"
    higher_is_better = False

    def __init__(self, recipe: GanRecipe, train: Dataset, held_out: Dataset, device: torch.device) -> None:
        self._recipe = recipe
        self._augment = diffaugment.policies(recipe.augment)
        self._classes = train.classes
        self._shape = {"classes": len(train.classes), "channels": train.channels, "size": train.size}
        self._device = device
        self._precision = precision_on(device, recipe.precision)
        self._fidelity = Fidelity(train, held_out, seed=recipe.seed, device=device)
        reseed(recipe.seed, "weights", 0)
        self._generator = zoo.create("gan", **self.config()).to(device)
        self._discriminator = discriminator(
            **self._shape, spectral_norm=recipe.spectral_norm, minibatch_stddev=recipe.minibatch_stddev
        ).to(device)
        self._average = Average(self._generator, recipe.ema)
        self._sampler = Sampler(
            cast(Generator, self._average.module).decode, recipe.latent, recipe.seed, device, self._precision
        )
        self._optimizers = {
            "generator": _adam(self._generator, recipe),
            "discriminator": _adam(self._discriminator, recipe),
        }
        self._pictured: list[Tensor] | None = None

    def learning_rate(self, at: At) -> float:
        """Return the learning rate of the generator."""
        return self._recipe.learning_rate * _share(at, self._recipe.warmup)

    def step(self, batch: Batch, at: At) -> dict[str, Tensor]:
        recipe = self._recipe
        set_learning_rate(self._optimizers["generator"], self.learning_rate(at))
        set_learning_rate(
            self._optimizers["discriminator"], recipe.discriminator_learning_rate * _share(at, recipe.warmup)
        )
        draws = seeded(recipe.seed, "adversaries", at.step, self._device)
        batch = batch.to(self._device)
        real = normalized(batch.pixels)
        for left in reversed(range(recipe.discriminator_steps)):
            with torch.set_grad_enabled(left == 0):
                fake = self._generated(batch.labels, draws)
            apart = self._teach_discriminator(real, fake.detach(), batch.labels, draws)
        fooled = self._teach_generator(fake, batch.labels, draws)
        self._average.update()
        return {"discriminator": apart, "generator": fooled}

    def validate(self) -> dict[str, float]:
        """`frechet_distance` and `class_accuracy` of images by the averaged generator; see `Fidelity`."""
        self._pictured = self._sampler.rows(min(len(self._classes), grid.ROWS), grid.COLUMNS)
        return self._fidelity.measure(self._sampler)

    def state(self) -> dict[str, Tensor]:
        optimizers = {f"{name}_optimizer": optimizer_state(found) for name, found in self._optimizers.items()}
        return joined(
            {
                "generator": self._generator.state_dict(),
                "discriminator": self._discriminator.state_dict(),
                "average": self._average.state(),
                "fidelity": self._fidelity.state(),
                **optimizers,
            }
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._generator.load_state_dict(part(state, "generator"))
        self._discriminator.load_state_dict(part(state, "discriminator"))
        self._average.restore(part(state, "average"))
        self._fidelity.restore(part(state, "fidelity"))
        for name, optimizer in self._optimizers.items():
            restore_optimizer(optimizer, part(state, f"{name}_optimizer"))

    def export(self) -> dict[str, Tensor]:
        return self._average.export()

    def config(self) -> dict[str, int | float | str | bool]:
        return {**self._shape, "latent": self._recipe.latent}

    def picture(self) -> Image.Image | None:
        """Eight images of each class, of the same latents each time."""
        return None if self._pictured is None else grid.draw([grid.Panel("generated", self._pictured)], self._classes)

    def _generated(self, labels: Tensor, draws: torch.Generator) -> Tensor:
        """New images of these classes, float32 [b, c, size, size]."""
        z = torch.randn(len(labels), self._recipe.latent, generator=draws, device=self._device)
        with autocast(self._device, self._precision):
            images: Tensor = self._generator(z, labels)
        return images.float()

    def _scores(self, images: Tensor, labels: Tensor, draws: torch.Generator, sets: int = 1) -> Tensor:
        """Return the discriminator's scores of the augmented images of several sets, float32 [b]."""
        images = diffaugment.augmented(images, self._augment, draws)
        with autocast(self._device, self._precision):
            scores: Tensor = self._discriminator(images, labels, sets)
        return scores.float()

    def _teach_discriminator(self, real: Tensor, fake: Tensor, labels: Tensor, draws: torch.Generator) -> Tensor:
        # Real and generated in one pass: half the launches, and one power iteration of the spectral norms.
        scores = self._scores(torch.cat([real, fake]), labels.repeat(2), draws, sets=2)
        loss = _LOSSES[self._recipe.loss].apart(*scores.chunk(2))
        return _descended(loss, self._optimizers["discriminator"])

    def _teach_generator(self, fake: Tensor, labels: Tensor, draws: torch.Generator) -> Tensor:
        self._discriminator.requires_grad_(False)  # or its gradients would be computed too, for nothing
        loss = _LOSSES[self._recipe.loss].fooled(self._scores(fake, labels, draws))
        self._discriminator.requires_grad_(True)
        return _descended(loss, self._optimizers["generator"])


@dataclass(frozen=True)
class _Loss:
    apart: Callable[[Tensor, Tensor], Tensor]
    """The discriminator's loss of scores of real and of generated images."""
    fooled: Callable[[Tensor], Tensor]
    """The generator's loss of the scores of its images."""
    betas: tuple[float, float]
    """The betas of Adam."""


_LOSSES = {
    # Lim & Ye 2017; no momentum, as in BigGAN (Brock et al. 2019, arXiv:1809.11096).
    "hinge": _Loss(
        apart=lambda real, fake: functional.relu(1 - real).mean() + functional.relu(1 + fake).mean(),
        fooled=lambda fake: -fake.mean(),
        betas=(0.0, 0.99),
    ),
    # Goodfellow et al. 2014, arXiv:1406.2661, section 3, non-saturating; betas of DCGAN.
    "bce": _Loss(
        apart=lambda real, fake: functional.softplus(-real).mean() + functional.softplus(fake).mean(),
        fooled=lambda fake: functional.softplus(-fake).mean(),
        betas=(0.5, 0.999),
    ),
}


def _adam(module: nn.Module, recipe: GanRecipe) -> torch.optim.Optimizer:
    weights, others = decaying(module)
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=_LOSSES[recipe.loss].betas, weight_decay=recipe.weight_decay)


def _descended(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Take a step down the gradient of a loss; return the loss, detached."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def _share(at: At, warmup: float) -> float:
    """Return the share of its peak that the learning rate has.

    It rises over `warmup` of the steps, is constant, and falls to 0 over the last half. No step has 0.
    """
    rising = round(warmup * at.steps)
    return min(1.0, (at.step + 1) / max(rising, 1), 2 * (at.steps - at.step) / at.steps)
