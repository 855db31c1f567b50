"""Judge a generator by real images: distances in feature space, copies of training images, what a classifier learns.

Features and predicted classes come from a classifier that the spec names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from contract.errors import JobConflict
from contract.models.registry import Model
from contract.records import Record
from worker.datasets.dataset import Dataset, evenly
from worker.engine.generators.sampler import Sampler
from worker.engine.images import pixels
from worker.engine.types import Runtime
from worker.evaluation.judges import Case, Judgement, forward
from worker.evaluation.judges.images import make, read_real
from worker.evaluation.judges.score import Score, accuracy, recipe
from worker.metrics import distances, neighbours
from worker.pages import generator as pages
from worker.pictures import grid

_PAIRS = 20
_LEARNT_AT_MOST = 60_000


class Figures(Record):
    """All figures of an evaluation, as they are stored."""

    features: str
    """The classifier, as name@version."""
    class_accuracy: float
    """The share of the generated images that the classifier assigns to their intended class."""
    distances: distances.Distances
    memorisation: neighbours.Memorisation
    closest: tuple[neighbours.Pair, ...]
    score: Score | None
    """The classification accuracy score, or None if no classifier was trained."""


@dataclass(frozen=True)
class Seen:
    """The classifier's features float32 [n, d] and predicted classes int64 [n] of some images."""

    features: torch.Tensor
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class GeneratorJudge:
    """Judge on a device with a number of threads. It trains classifiers, so a process may run one at a time."""

    device: torch.device
    threads: int

    def __call__(self, case: Case) -> Judgement:
        """Compare the generator with the images of the spec that it did not learn from.

        Raises InvalidSource if the images are not of its classes.
        """
        spec, model = case.spec, case.model
        if spec.features is None:
            raise JobConflict(
                f"{spec.id} names no classifier to compare features with; submit it again with --features."
            )
        real = read_real(case)
        learnt, held_out = real.learnt, real.held_out
        count = min(spec.count, len(held_out)) if spec.count else len(held_out)
        learners = min(len(learnt), _LEARNT_AT_MOST) if spec.cas_epochs else 0
        work = len(learnt) + len(held_out) + 2 * count + learners * (1 + 2 * spec.cas_epochs)
        case.plan(work, real.left_out)
        done = 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            case.lease.progress(done, 0)
            case.lease.check()

        torch.set_num_threads(self.threads)
        found = case.models.generator(spec.model, spec.precision)
        sampler = found.sampler(spec.seed)
        generated = make(sampler, held_out.rows(evenly(len(held_out), count)), advance)
        with case.models.use(spec.features, spec.precision) as loaded:
            size = case.models.model(spec.features).preprocess.size
            seen = [_seen(loaded.runtime, data, size, advance) for data in (generated, held_out, learnt)]
        ours, theirs, training = seen
        near, rows = neighbours.nearest(ours.features, training.features)
        real_near, _ = neighbours.nearest(theirs.features, training.features)
        case.lease.check()
        figures = Figures(
            features=spec.features,
            class_accuracy=_right(ours, generated, case.models.model(spec.features), model),
            distances=distances.measure(theirs.features, ours.features),
            memorisation=neighbours.memorisation(near, real_near, quantile=max(0.01, 1 / len(held_out))),
            closest=neighbours.closest(near, rows, _PAIRS),
            score=self._score(case, sampler, learnt, held_out, learners, advance) if learners else None,
        )
        sections = pages.sections(
            pages.Evaluation(
                features=spec.features,
                distances=figures.distances,
                memorisation=figures.memorisation,
                samples=_samples(sampler, model),
                nearest=_pairs(figures.closest, generated, learnt),
                generated=near.numpy(),
                held_out=real_near.numpy(),
            )
        )
        if (score := figures.score) is not None:
            how = score.recipe
            learning = pages.learning(how.variant, how.epochs, score.images, score.tested, score.generated, score.real)
            sections = (*sections, learning)
        return Judgement(
            figures=figures.to_json(),
            metrics=headline(figures),
            data=f"{spec.source.label}, {len(held_out):,} images that it did not learn from",
            sections=sections,
            runtime=found.name,
            precision=found.precision,
        )

    def _score(
        self,
        case: Case,
        sampler: Sampler,
        learnt: Dataset,
        test: Dataset,
        images: int,
        advance: Callable[[int], None],
    ) -> Score:
        how = recipe(case.spec.cas_epochs, case.spec.seed)
        real = learnt.rows(evenly(len(learnt), images))
        generated = make(sampler, real, advance)
        return Score(
            generated=accuracy(generated, test, how, self.device, advance),
            real=accuracy(real, test, how, self.device, advance),
            images=images,
            tested=len(test),
            recipe=how,
        )


def headline(figures: Figures) -> dict[str, float]:
    """Return the figures that `imagemill show` prints."""
    shape = figures.distances.manifold
    found = {
        "frechet_distance": figures.distances.frechet,
        "kernel_distance": figures.distances.kid.mean,
        "precision": shape.precision,
        "recall": shape.recall,
        "density": shape.density,
        "coverage": shape.coverage,
        "memorised": figures.memorisation.share,
        "class_accuracy": figures.class_accuracy,
    }
    if figures.score is not None:
        found |= {"cas": figures.score.generated, "cas_real": figures.score.real, "cas_gap": figures.score.gap}
    return found


def _seen(runtime: Runtime, data: Dataset, size: int, advance: Callable[[int], None]) -> Seen:
    outputs = list(forward(runtime, data, advance, lambda images: pixels.rgb(pixels.resized(images, size))))
    features = torch.from_numpy(np.concatenate([output.features for output in outputs]))
    return Seen(features, np.concatenate([output.logits.argmax(axis=1) for output in outputs]))


def _right(seen: Seen, asked: Dataset, classifier: Model, generator: Model) -> float:
    """The share of the images whose predicted class has the name of the intended one."""
    names = np.array(classifier.labels)[seen.classes]
    return float(np.mean(names == np.array(generator.labels)[asked.labels]))


def _samples(sampler: Sampler, model: Model) -> bytes:
    rows = sampler.rows(min(len(model.labels), grid.ROWS), grid.COLUMNS)
    return grid.to_png(grid.draw([grid.Panel("", rows)], model.labels, scale=2))


def _pairs(
    closest: tuple[neighbours.Pair, ...], generated: Dataset, learnt: Dataset
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[float]]:
    ours = generated.images[np.array([pair.generated for pair in closest], np.int64)]
    theirs = learnt.images[np.array([pair.training for pair in closest], np.int64)]
    return ours, theirs, [pair.distance for pair in closest]
