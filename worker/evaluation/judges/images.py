"""The images of a generator's evaluation: real ones that it learnt from or did not, and generated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from worker.datasets.dataset import Dataset, split
from worker.datasets.reader import Wanted
from worker.engine.generators.sampler import Sampler
from worker.evaluation.judges import Case


@dataclass(frozen=True)
class Real:
    """The real images that a generator is compared with."""

    learnt: Dataset
    """What its training saw."""
    held_out: Dataset
    """What its training did not see."""
    left_out: Counter[str]
    """How many images could not be read, by error code."""


def read_real(case: Case) -> Real:
    """Read the images of the spec.

    The generator has not seen the test part of IDX files, or else the part that its training held out. Raises
    InvalidSource if the images are not of its classes.
    """
    spec, model = case.spec, case.model
    pre = model.preprocess
    wanted = Wanted(size=pre.size, channels=pre.channels, classes=model.labels, min_score=spec.min_score)
    read = case.reader.read(spec.source, wanted, case.seen)
    if case.reader.has_test_part(spec.source):
        test = case.reader.read(spec.source, replace(wanted, part="test"), case.seen)
        return Real(read.data, test.data, read.left_out + test.left_out)
    share, seed = float(model.recipe.get("validation") or 0.1), int(model.recipe.get("seed") or 0)
    learnt, held_out = split(read.data, share, seed)
    return Real(learnt, held_out, read.left_out)


def make(sampler: Sampler, like: Dataset, advance: Callable[[int], None]) -> Dataset:
    """Generate as many images of each class as `like` has, starting from the first index of each class."""
    labels = torch.from_numpy(like.labels)
    images = np.empty(like.images.shape, np.uint8)
    at = 0
    for group in sampler.groups(labels, numbered(labels)):
        images[at : at + len(group)] = group.movedim(1, -1).numpy()
        at += len(group)
        advance(len(group))
    return Dataset(images, like.labels, like.classes)


def numbered(labels: torch.Tensor) -> torch.Tensor:
    """Return for each label, int64 [n], how many equal labels come before it."""
    order = labels.argsort(stable=True)
    sizes = labels.bincount()
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.empty_like(labels).scatter_(0, order, torch.arange(len(labels)) - starts)
