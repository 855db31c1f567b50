"""The judge of generated images: small distances for real ones, larger the less they are like them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.errors import InvalidSource
from tests.worker.training.shapes import shapes
from tests.worker.training.toys import sequences
from worker.datasets.dataset import Dataset, split
from worker.engine.generators.sampler import Sampler
from worker.training.data.batches import normalized, take
from worker.training.learners.fidelity import Fidelity
from worker.training.randomness import seeded

CPU = torch.device("cpu")
TRAIN, HELD_OUT = split(shapes(1000), 0.5, seed=0)


@pytest.fixture(scope="module")
def judge() -> Fidelity:
    return Fidelity(TRAIN, HELD_OUT, seed=0, device=CPU)


@dataclass
class Images:
    """A generator that knows images by heart, of each class one after the other."""

    data: Dataset
    noise: float = 0.0

    def sampler(self) -> Sampler:
        following = [itertools.cycle(np.flatnonzero(self.data.labels == label)) for label in (0, 1)]

        def decode(z: Tensor, y: Tensor) -> Tensor:
            images = normalized(take(self.data, np.array([next(following[label]) for label in y.tolist()])).pixels)
            return images + self.noise * torch.randn(images.shape, generator=seeded(0, "noise", 0))

        return Sampler(decode, 4, seed=0, device=CPU, precision="fp32")


def test_the_less_images_are_like_real_ones_the_larger_is_the_distance(judge: Fidelity) -> None:
    # Given other real images, the same with noise, with one kind of each class only, and with the classes mixed up,
    real = Images(shapes(500, seed=1))
    noisy = replace(real, noise=0.3), replace(real, noise=0.5)
    few = Images(shapes(2, seed=1))
    swapped = Images(replace(real.data, labels=1 - real.data.labels))

    # I expect the judge to find each where it belongs,
    good, little, much, one, mixed = (judge.measure(each.sampler()) for each in (real, *noisy, few, swapped))
    assert good["class_accuracy"] > 0.95
    assert 3 * good["frechet_distance"] < little["frechet_distance"] < much["frechet_distance"]
    assert 30 * good["frechet_distance"] < one["frechet_distance"]

    # and swapped classes by their accuracy alone: the images as a whole are as real as before.
    assert mixed["class_accuracy"] < 0.05
    assert mixed["frechet_distance"] == pytest.approx(good["frechet_distance"])


def test_the_held_out_images_themselves_are_at_no_distance(judge: Fidelity) -> None:
    found = judge.measure(Images(HELD_OUT).sampler())
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-3)


def test_the_judge_follows_from_data_and_seed_and_goes_with_the_state(
    judge: Fidelity, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Images(shapes(64, seed=2))
    expected = judge.measure(images.sampler())

    # If another learns from the same, whatever torch's global generator holds, I expect the same verdict,
    torch.manual_seed(7)
    again = Fidelity(TRAIN, HELD_OUT, seed=0, device=CPU)
    assert again.state() == {}, "it learns when it is first asked"
    assert again.measure(images.sampler()) == expected

    # and of one that gets the state of the first, without learning.
    monkeypatch.setattr("worker.training.learners.fidelity._STEPS", 0)
    restored = Fidelity(TRAIN, HELD_OUT, seed=0, device=CPU)
    restored.restore(judge.state())
    assert restored.measure(images.sampler()) == expected

    # An empty state is that of one that was never asked.
    restored.restore({})
    assert restored.measure(images.sampler()) != expected


def test_of_many_held_out_images_some_of_each_class_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.training.learners.fidelity._MOST", 10)
    monkeypatch.setattr("worker.training.learners.fidelity._STEPS", 2)

    # Given held-out images that are sorted by class, as those of folders are, I expect both classes to be asked for.
    ordered = HELD_OUT.rows(np.argsort(HELD_OUT.labels, kind="stable"))
    asked: list[int] = []

    def decode(z: Tensor, y: Tensor) -> Tensor:
        asked.extend(y.tolist())
        return torch.zeros(len(y), 1, 16, 16)

    Fidelity(TRAIN, ordered, seed=0, device=CPU).measure(Sampler(decode, 4, 0, CPU, "fp32"))
    assert asked[:10] == [0] * 5 + [1] * 5, "the rest fills the group"


@pytest.mark.parametrize("size", [4, 12, 28, 112])
def test_images_of_any_size_are_judged(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.training.learners.fidelity._STEPS", 1)
    train, held_out = split(shapes(8, size=size, channels=3), 0.5, seed=0)
    found = Fidelity(train, held_out, seed=0, device=CPU).measure(Images(train).sampler())
    assert found["frechet_distance"] > 0


def test_data_that_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InvalidSource, match="sequences"):
        Fidelity(sequences(), sequences(), seed=0, device=CPU)
    with pytest.raises(InvalidSource, match="One image is held out"):
        Fidelity(TRAIN, HELD_OUT.rows(np.array([3])), seed=0, device=CPU)
