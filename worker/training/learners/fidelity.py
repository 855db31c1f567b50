"""Measures the distance of generated images from held-out real ones, in the features of a small classifier.

It knows no family: what generates is a function of latents and labels. Its distances compare the epochs of one
training, not two trainings and not with an FID, whose features are another network's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.errors import InvalidSource
from worker.datasets.dataset import Dataset, evenly
from worker.engine.generators.sampler import Sampler
from worker.metrics.distances import frechet
from worker.training.data.batches import normalized, take
from worker.training.optimization.optimizers import set_learning_rate
from worker.training.optimization.schedule import warm_cosine
from worker.training.randomness import reseed, seeded
from worker.zoo import initial

_STEPS, _BATCH = 200, 128
_PEAK, _WARMUP = 0.002, 0.1
_MOST = 5000  # held-out images that are compared
_AT_ONCE = 256
_FEATURES = 64
_GRID = 8


class Fidelity:
    """Judges whatever generates images of the classes of `train` by the images of `held_out`.

    The judge is a classifier of 0.2 million parameters that learns from 200 batches of `train` when it is first
    needed, seeded, in 5 s of CPU time (87 % on Fashion-MNIST); the features are its 64 before the last ReLU. A fixed
    judge, since the features of a discriminator move with it, and one that has seen the classes: if shirts are
    replaced by t-shirts, the distance is 7.6 times that of real images, with random weights 2.6 times; under noise of
    5 levels 1.6 times, with random weights no more than before. It is part of the state, so that a training that goes
    on elsewhere is judged by the same one to its end.

    Raises InvalidSource where the data holds sequences, or fewer than two images are held out.
    """

    def __init__(self, train: Dataset, held_out: Dataset, *, seed: int, device: torch.device) -> None:
        if train.lengths is not None:
            raise InvalidSource("The data holds sequences, and generators learn from images; take images.")
        if len(held_out) < 2:
            raise InvalidSource(
                "One image is held out, and generated images are compared with two at least; add images, or hold out "
                "a larger share with --set validation=0.5."
            )
        self._train = train
        self._seed = seed
        self._device = device
        self._real = take(held_out, evenly(len(held_out), _MOST))
        self._network: _Classifier | None = None
        self._features: Tensor | None = None

    def measure(self, sampler: Sampler) -> dict[str, float]:
        """`frechet_distance` and `class_accuracy` of as many generated images as are held out, 5,000 at most.

        They have the classes of those held out. The first is the squared Fréchet distance of the two sets of
        features (Heusel et al. 2017, arXiv:1706.08500, equation 6), 0 for the same distribution; the second the
        share, 0 to 1, of the generated images that the judge takes for the class that was asked for.
        """
        network = self._network or self._learned()
        if self._features is None:
            self._features, _ = _judged(network, self._real.pixels, self._device)
        generated = sampler.images(self._real.labels, torch.arange(len(self._real)))
        features, classes = _judged(network, generated, self._device)
        right = int((classes == self._real.labels).sum())
        return {
            "frechet_distance": frechet(self._features, features),
            "class_accuracy": right / len(self._real),
        }

    def state(self) -> dict[str, Tensor]:
        """Return the weights of the judge; empty before the first `measure`."""
        return {} if self._network is None else dict(self._network.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._network, self._features = None, None
        if state:
            self._network = self._fresh()
            self._network.load_state_dict(dict(state))

    def _fresh(self) -> _Classifier:
        reseed(self._seed, "judge", 0)
        return _Classifier(len(self._train.classes), self._train.channels, self._train.size).to(self._device)

    def _learned(self) -> _Classifier:
        network = self._network = self._fresh()
        optimizer = torch.optim.Adam(network.parameters())
        for step in range(_STEPS):
            draws = torch.randint(len(self._train), (_BATCH,), generator=seeded(self._seed, "judge", step))
            batch = take(self._train, draws.numpy()).to(self._device)
            logits, _ = network(normalized(batch.pixels))
            optimizer.zero_grad()
            functional.cross_entropy(logits, batch.labels).backward()
            set_learning_rate(optimizer, warm_cosine(step, _STEPS, peak=_PEAK, warmup=_WARMUP))
            optimizer.step()
        return network


class _Classifier(nn.Module):
    """4×4 convolutions of stride 2 down to a side of 8 at most, then 64 features and a class, as the zoo's answer."""

    def __init__(self, classes: int, channels: int, size: int) -> None:
        super().__init__()
        self.down = nn.Sequential()
        width = 16
        while size > _GRID:
            width, size = min(2 * width, 64), size // 2
            self.down.extend([nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU(inplace=True)])
            channels = width
        self.features = nn.Linear(channels * size * size, _FEATURES)
        self.classes = nn.Linear(_FEATURES, classes)
        initial.he(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float [n, c, size, size] in −1..1 to logits [n, classes] and features [n, 64]."""
        features = self.features(self.down(x).flatten(1))
        return self.classes(functional.relu(features)), features


@torch.inference_mode()
def _judged(network: _Classifier, pixels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features float32 [n, 64] and predicted classes, int64 [n], on the CPU, of uint8 [n, c, size, size]."""
    found = [network(normalized(some.to(device))) for some in pixels.split(_AT_ONCE)]
    logits, features = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return features, logits.argmax(dim=1)
