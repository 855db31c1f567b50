"""The sections of a generated data set: contact sheets, nearest training images, acceptance, scores, distances.

Knows no job, only the figures and images that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.metrics.distances import Distances
from worker.pages import acceptance, distances
from worker.pages.acceptance import ClassCount, worst_first
from worker.pages.page import Picture, Section
from worker.pictures import grid, plots

SHEETS = 24
"""The most classes that get a contact sheet."""
SHEET = 36
"""The most images on the contact sheet of a class: three rows."""
PAIRS = 20


@dataclass(frozen=True, slots=True, eq=False)
class GateScores:
    """The gate's scores for the intended class, float [n] and [m], from 0 to 1."""

    accepted: NDArray[np.floating]
    rejected: NDArray[np.floating]
    least: float | None = None
    """The lowest score that is accepted."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The accepted images nearest to a training image, each with that image, nearest first; `PAIRS` are shown."""

    generated: NDArray[np.uint8]
    """[k, h, w, c], c 1 or 3."""
    training: NDArray[np.uint8]
    """The training images, of the same shape."""
    distances: Sequence[float]
    """[k], between features."""
    least: float | None = None
    """Candidates nearer than this were rejected as copies."""


@dataclass(frozen=True, slots=True, eq=False)
class Synthesis:
    """A generated data set; a field that is None or empty has no section."""

    classes: tuple[ClassCount, ...]
    """At least one."""
    images: Mapping[int, NDArray[np.uint8]]
    """Accepted images uint8 [n, h, w, c], c 1 or 3, by place in `classes`.

    `pictured` says which classes are shown, each with its first `SHEET` images. A class without images may be missing.
    """
    scores: GateScores | None = None
    nearest: Nearest | None = None
    distances: Distances | None = None
    features: str = ""
    """The network whose features are compared, as name@version."""


def pictured(classes: Sequence[ClassCount]) -> tuple[int, ...]:
    """Return the places of the classes with a contact sheet: all, or the `SHEETS` with the lowest acceptance."""
    if len(classes) <= SHEETS:
        return tuple(range(len(classes)))
    return tuple(sorted(worst_first(classes)[:SHEETS]))


def sections(found: Synthesis) -> tuple[Section, ...]:
    """Return the sections of the page: pictures first, then figures."""
    shown = [_sheets(found)]
    if found.nearest is not None and len(found.nearest.distances):
        shown.append(_pairs(found.nearest))
    if any(one.candidates > one.accepted or one.shortfall for one in found.classes):
        shown.append(acceptance.section(found.classes))
    if found.scores is not None:
        shown.append(_scores(found.scores))
    shown.append(Section("Classes", tables=acceptance.class_tables(found.classes)))
    if found.distances is not None:
        network = f"Measured between features of {found.features}. " if found.features else ""
        shown.append(
            Section(
                "Distances to real images",
                f"{network}{distances.COMPARABLE}",
                tables=(distances.table(found.distances),),
            )
        )
    return tuple(shown)


def _sheets(found: Synthesis) -> Section:
    places = [at for at in pictured(found.classes) if len(found.images.get(at, ()))]
    pictures = tuple(
        Picture(grid.contact_sheet(found.images[at][:SHEET]), _sheet_caption(found.classes[at], len(found.images[at])))
        for at in places
    )
    wanted, accepted = sum(one.wanted for one in found.classes), sum(one.accepted for one in found.classes)
    many = len(found.classes)
    text = f"{accepted:,} of {wanted:,} images in {many:,} {'class' if many == 1 else 'classes'}. "
    text += "Each sheet shows the first accepted images of a class, not selected."
    if many > SHEETS:
        text += f" Only the {SHEETS} classes with the lowest acceptance are shown."
    empty = [one.name for one in found.classes if not one.accepted]
    if empty:
        more = f" and {len(empty) - 10} more" if len(empty) > 10 else ""
        text += f" Classes without any image: {', '.join(empty[:10])}{more}."
    if accepted < wanted:
        text += " For more images, raise --max-attempts, lower --min-score or train the generator longer."
    return Section("Images", text, pictures=pictures)


def _sheet_caption(one: ClassCount, images: int) -> str:
    made = f"{one.name}: {min(images, SHEET):,} of {one.accepted:,}"
    return made + (f"; {one.shortfall:,} of {one.wanted:,} wanted are missing" if one.shortfall else "")


def _pairs(nearest: Nearest) -> Section:
    captions = [f"distance {one:.3g}" for one in nearest.distances[:PAIRS]]
    pictures = grid.pairs(nearest.generated[:PAIRS], nearest.training[:PAIRS], captions)
    limit = "" if nearest.least is None else f" Candidates nearer than {nearest.least:g} were rejected as copies."
    return Section(
        "Nearest training images",
        f"The accepted images that are nearest to a training image: a copy would show up here first.{limit}",
        pictures=(
            Picture(pictures, "Left an accepted image, right the training image nearest to it; nearest pairs first."),
        ),
    )


def _scores(scores: GateScores) -> Section:
    spread = plots.histogram(
        "",
        "score of the intended class",
        {"accepted": scores.accepted, "rejected": scores.rejected},
        span=(0, 1),
        mark=None if scores.least is None else ("lowest accepted score", scores.least),
    )
    return Section(
        "Scores of the gate",
        pictures=(Picture(spread, "The score that the gate gives an image for the class it was generated as."),),
    )
