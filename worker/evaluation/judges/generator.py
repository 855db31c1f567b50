"""Judges a generator by real images: distances in feature space, copies of training images, what can be learnt from it.

Features and classes are those of a classifier that the spec names.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from contract.errors import JobConflict
from contract.models.registry import Model
from contract.records import Record
from worker.datasets.dataset import Dataset, evenly, split
from worker.datasets.reader import Wanted
from worker.engine.generators.sampler import Sampler
from worker.engine.images import pixels
from worker.engine.runtime import Runtime
from worker.evaluation.judges import Case, Judgement, forward
from worker.evaluation.judges.score import Score, accuracy, recipe
from worker.metrics import distances, neighbours
from worker.pages import page, plots
from worker.pictures import grid

_PAIRS = 20
_LEARNT_AT_MOST = 60_000


class Figures(Record):
    """All that was found."""

    features: str
    """The classifier, as name@version."""
    class_accuracy: float
    """The share of the generated images that it takes for the class that was asked for."""
    distances: distances.Distances
    memorisation: neighbours.Memorisation
    closest: tuple[neighbours.Pair, ...]
    score: Score | None
    """The classification accuracy score, None where no classifier was to be trained."""


@dataclass(frozen=True)
class Seen:
    """What a classifier says of images: features float32 [n, d], and classes int64 [n]."""

    features: torch.Tensor
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class GeneratorJudge:
    """Judges on a device, with so many threads; it trains classifiers, so one at a time in a process."""

    device: torch.device
    threads: int

    def __call__(self, case: Case) -> Judgement:
        """The figures of the generator of a case against the images of its spec.

        Those that it did not learn from are what it is compared with: the test part of IDX files, else the part that
        its training held out. Raises InvalidSource where the images are not of its classes.
        """
        spec, model = case.spec, case.model
        if spec.features is None:
            raise JobConflict(f"{spec.id} names no classifier whose features to compare by; submit it again.")
        learnt, held_out, left_out = _real(case)
        count = min(spec.count, len(held_out)) if spec.count else len(held_out)
        learners = min(len(learnt), _LEARNT_AT_MOST) if spec.cas_epochs else 0
        work = len(learnt) + len(held_out) + 2 * count + learners * (1 + 2 * spec.cas_epochs)
        case.plan(work, left_out)
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
        ours, real, training = seen
        near, rows = neighbours.nearest(ours.features, training.features)
        real_near, _ = neighbours.nearest(real.features, training.features)
        case.lease.check()
        figures = Figures(
            features=spec.features,
            class_accuracy=_right(ours, generated, case.models.model(spec.features), model),
            distances=distances.measure(real.features, ours.features),
            memorisation=neighbours.memorisation(near, real_near, quantile=max(0.01, 1 / len(held_out))),
            closest=neighbours.closest(near, rows, _PAIRS),
            score=self._score(case, sampler, learnt, held_out, learners, advance) if learners else None,
        )
        sections = page.generator(
            figures.distances,
            figures.memorisation,
            features=spec.features,
            samples=_samples(sampler, model),
            pairs=_pairs(figures.closest, generated, learnt),
            generated=near.numpy(),
            held_out=real_near.numpy(),
        )
        return Judgement(
            figures=figures.to_json(),
            metrics=headline(figures),
            data=f"{spec.source.label}, {len(held_out):,} images that it did not learn from",
            sections=(*sections, *_learning(figures)),
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


def make(sampler: Sampler, like: Dataset, advance: Callable[[int], None]) -> Dataset:
    """As many generated images of each class as `like` has: the first of each."""
    labels = torch.from_numpy(like.labels)
    images = np.empty(like.images.shape, np.uint8)
    at = 0
    for group in sampler.groups(labels, numbered(labels)):
        images[at : at + len(group)] = group.movedim(1, -1).numpy()
        at += len(group)
        advance(len(group))
    return Dataset(images, like.labels, like.classes)


def numbered(labels: torch.Tensor) -> torch.Tensor:
    """For each label, int64 [n], how many of the same came before it."""
    order = labels.argsort(stable=True)
    sizes = labels.bincount()
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.empty_like(labels).scatter_(0, order, torch.arange(len(labels)) - starts)


def headline(figures: Figures) -> dict[str, float]:
    """What `show` prints of them."""
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


def _real(case: Case) -> tuple[Dataset, Dataset, Counter[str]]:
    """What the generator learnt from, what it did not, and what could not be read, by error code."""
    spec, model = case.spec, case.model
    pre = model.preprocess
    wanted = Wanted(size=pre.size, channels=pre.channels, classes=model.labels, min_score=spec.min_score)
    read = case.reader.read(spec.source, wanted, case.seen)
    if case.reader.has_test_part(spec.source):
        test = case.reader.read(spec.source, replace(wanted, part="test"), case.seen)
        return read.data, test.data, read.left_out + test.left_out
    share, seed = float(model.recipe.get("validation") or 0.1), int(model.recipe.get("seed") or 0)
    learnt, held_out = split(read.data, share, seed)
    return learnt, held_out, read.left_out


def _seen(runtime: Runtime, data: Dataset, size: int, advance: Callable[[int], None]) -> Seen:
    outputs = list(forward(runtime, data, advance, lambda images: pixels.rgb(pixels.resized(images, size))))
    features = torch.from_numpy(np.concatenate([output.features for output in outputs]))
    return Seen(features, np.concatenate([output.logits.argmax(axis=1) for output in outputs]))


def _right(seen: Seen, asked: Dataset, classifier: Model, generator: Model) -> float:
    """The share of the images whose predicted class has the name of the one that was asked for."""
    names = np.array(classifier.labels)[seen.classes]
    return float(np.mean(names == np.array(generator.labels)[asked.labels]))


def _samples(sampler: Sampler, model: Model) -> bytes:
    rows = sampler.rows(min(len(model.labels), grid.ROWS), grid.COLUMNS)
    target = io.BytesIO()
    grid.draw([grid.Panel("generated", rows)], model.labels).save(target, "PNG")
    return target.getvalue()


def _pairs(closest: tuple[neighbours.Pair, ...], generated: Dataset, learnt: Dataset) -> bytes:
    ours = generated.images[np.array([pair.generated for pair in closest], np.int64)]
    theirs = learnt.images[np.array([pair.training for pair in closest], np.int64)]
    return plots.pairs(ours, theirs, [pair.distance for pair in closest])


def _learning(figures: Figures) -> tuple[page.Section, ...]:
    score = figures.score
    if score is None:
        return ()
    rows = (("generated", score.images, f"{score.generated:.2%}"), ("real", score.images, f"{score.real:.2%}"))
    return (
        page.Section(
            "What can be learnt from it",
            f"The same classifier ({score.recipe.variant}, {score.recipe.epochs} epochs), trained on generated and on "
            f"real images, and tested on {score.tested:,} real ones: {100 * score.gap:.2f} points apart.",
            tables=(page.Table(("trained on", "images", "accuracy on real images"), rows),),
        ),
    )
