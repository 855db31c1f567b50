"""The sections of a generator's evaluation: distances, samples, nearest training images, what a classifier learns.

Knows no model and no data set, only the figures and images that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worker.metrics.distances import Distances
from worker.metrics.neighbours import Memorisation
from worker.pages import distances
from worker.pages.page import Picture, Section, Table, percent
from worker.pictures import grid, plots


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was measured of a generator, and the images to show."""

    features: str
    """The network whose features are compared, as name@version."""
    distances: Distances
    memorisation: Memorisation
    samples: bytes
    """A grid of generated images, PNG."""
    nearest: tuple[NDArray[np.uint8], NDArray[np.uint8], Sequence[float]]
    """Generated images [k, h, w, c], their nearest training images, and the distances [k], nearest first."""
    generated: ArrayLike
    """Distances [n] of generated images to the nearest training image."""
    held_out: ArrayLike
    """Distances [m] of held-out images to the nearest training image."""


def sections(found: Evaluation) -> tuple[Section, ...]:
    """Return the sections, except what a classifier learns from the images (`learning`)."""
    return (
        Section(
            "Distances",
            f"Measured between features of {found.features}. {distances.COMPARABLE}",
            tables=(distances.table(found.distances),),
        ),
        Section("Samples", pictures=(Picture(found.samples, "Generated images of each class, not selected."),)),
        _nearest(found),
    )


def learning(variant: str, epochs: int, images: int, tested: int, generated: float, real: float) -> Section:
    """Return the section of the classification accuracy score; `generated` and `real` are accuracies from 0 to 1."""
    rows = (("generated images", images, percent(generated)), ("real images", images, percent(real)))
    return Section(
        "What a classifier learns from it",
        f"The same classifier ({variant}, {epochs} epochs) was trained once on generated and once on real images, and "
        f"tested on {tested:,} real images. Accuracy differs by {100 * (real - generated):.2f} percentage points.",
        tables=(Table(("trained on", "images", "accuracy on real images"), rows),),
    )


def _nearest(found: Evaluation) -> Section:
    copies = found.memorisation
    rank, rest = percent(copies.quantile), percent(1 - copies.quantile)
    spread = plots.histogram(
        "",
        "Euclidean distance of features",
        {"generated": found.generated, "held out": found.held_out},
        mark=(f"nearest {rank} of held-out images", copies.threshold),
    )
    ours, theirs, apart = found.nearest
    pairs = grid.pairs(ours, theirs, [f"distance {one:.3g}" for one in apart])
    return Section(
        "Nearest training images",
        f"{percent(copies.share)} of the generated images are nearer to a training image than {rest} of the held-out "
        f"images are. A generator that invents images as new as the held-out ones reaches {rank}; one that copies "
        "exceeds it.",
        pictures=(
            Picture(pairs, "Left a generated image, right the training image nearest to it; nearest pairs first."),
            Picture(spread, "Distance to the nearest training image. Copies would pile up on the left."),
        ),
        tables=(
            Table(
                ("images", "number", "median distance"),
                (
                    ("generated", copies.generated, copies.generated_median),
                    ("held out", copies.held_out, copies.held_out_median),
                ),
            ),
        ),
    )
