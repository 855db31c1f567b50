"""What the page of a generated data set shows: contact sheets, how many of each class were accepted, and how new it is.

It knows no figures and no images but those that it is given, and none of the jobs that they come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.data.image_index import REJECTS
from worker.metrics.distances import Distances
from worker.pages import plots
from worker.pages.page import Cell, Picture, Section, Table, distance_figures, percent
from worker.pictures import contact_sheet

SHEETS = 24
"""Classes that have a contact sheet, at most."""
SHEET = 36
"""Images of a class that a contact sheet shows, at most: three rows."""
PAIRS = 20
_BARS = 40  # more are not readable
_MEANING = {
    "class": "the gate takes it for another class",
    "score": "the gate is not sure enough of its class",
    "copy": "too near a training image",
    "duplicate": "too near an accepted image of a lower index",
    "surplus": "behind the last that was wanted",
}


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many images of a class were wanted, how many of the candidates were accepted, and why the others were not."""

    name: str
    wanted: int
    accepted: int
    candidates: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    """By reason, `contract.data.image_index.REJECTS`; one that is not here rejected none."""

    @property
    def shortfall(self) -> int:
        return max(0, self.wanted - self.accepted)

    @property
    def acceptance(self) -> float | None:
        """The share of the candidates that were accepted, 0 to 1, those aside that came when all were there."""
        judged = self.candidates - self.rejects.get("surplus", 0)
        return self.accepted / judged if judged else None


@dataclass(frozen=True, slots=True, eq=False)
class GateScores:
    """What the gate gave the class that was asked for, float [n] and [m], 0 to 1."""

    accepted: NDArray[np.floating]
    rejected: NDArray[np.floating]
    least: float | None = None
    """The score that an image needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The accepted images nearest to a training image, nearest first, each with that image; `PAIRS` are shown."""

    generated: NDArray[np.uint8]
    """[k, h, w, c], c 1 or 3."""
    training: NDArray[np.uint8]
    """Of the same shape."""
    distances: Sequence[float]
    """[k], between features."""
    least: float | None = None
    """Nearer than this is a copy, and was rejected."""


@dataclass(frozen=True, slots=True, eq=False)
class Synthesis:
    """A generated data set; what is None, or empty, has no section."""

    classes: tuple[ClassCount, ...]
    """At least one."""
    images: Mapping[int, NDArray[np.uint8]]
    """Accepted images by place in `classes`, uint8 [n, h, w, c], c 1 or 3; `pictured` says of which classes, the first
    `SHEET` of each are shown. A class with no image may be left out, or have n 0."""
    scores: GateScores | None = None
    nearest: Nearest | None = None
    distances: Distances | None = None
    features: str = ""
    """The network whose features the distances are of, as name@version."""


def pictured(classes: Sequence[ClassCount]) -> tuple[int, ...]:
    """The places of the classes that get a contact sheet: all in their order, or the `SHEETS` that went worst."""
    if len(classes) <= SHEETS:
        return tuple(range(len(classes)))
    return tuple(sorted(_worst_first(classes)[:SHEETS]))


def sections(found: Synthesis) -> tuple[Section, ...]:
    """The sections of its page: first what there is to look at, then what there is to read."""
    shown = [_sheets(found)]
    if found.nearest is not None and len(found.nearest.distances):
        shown.append(_pairs(found.nearest))
    if any(one.candidates > one.accepted or one.shortfall for one in found.classes):
        shown.append(_acceptance(found.classes))
    if found.scores is not None:
        shown.append(_scores(found.scores))
    shown.append(Section("Classes", tables=_class_tables(found.classes)))
    if found.distances is not None:
        network = f"Between features of {found.features}. " if found.features else ""
        shown.append(
            Section(
                "Distances to real images",
                f"{network}They compare only with figures of the same network, the same data and as many images.",
                tables=(distance_figures(found.distances),),
            )
        )
    return tuple(shown)


def _worst_first(classes: Sequence[ClassCount]) -> list[int]:
    """Places by acceptance, lowest first; a class without a candidate before all others."""
    return sorted(range(len(classes)), key=lambda at: -1.0 if (a := classes[at].acceptance) is None else a)


def _sheets(found: Synthesis) -> Section:
    places = [at for at in pictured(found.classes) if len(found.images.get(at, ()))]
    pictures = tuple(
        Picture(contact_sheet.draw(found.images[at][:SHEET]), _sheet_caption(found.classes[at], len(found.images[at])))
        for at in places
    )
    wanted, accepted = sum(one.wanted for one in found.classes), sum(one.accepted for one in found.classes)
    many = len(found.classes)
    text = f"{accepted:,} images of {wanted:,} wanted, of {many:,} {'class' if many == 1 else 'classes'}. "
    text += "Each sheet shows the first that were accepted, not selected."
    if many > SHEETS:
        text += f" The {SHEETS} classes with the lowest acceptance are shown."
    empty = [one.name for one in found.classes if not one.accepted]
    if empty:
        text += (
            f" Without any image: {', '.join(empty[:10])}{f' and {len(empty) - 10} more' if len(empty) > 10 else ''}."
        )
    return Section("Images", text, pictures=pictures)


def _sheet_caption(one: ClassCount, images: int) -> str:
    made = f"{one.name}: {min(images, SHEET):,} of {one.accepted:,}"
    return made + (f"; {one.shortfall:,} are missing of {one.wanted:,}" if one.shortfall else "")


def _pairs(nearest: Nearest) -> Section:
    pictures = plots.pairs(nearest.generated[:PAIRS], nearest.training[:PAIRS], nearest.distances[:PAIRS])
    limit = "" if nearest.least is None else f" Nearer than {nearest.least:g} is a copy, and was rejected."
    return Section(
        "Nearest training images",
        f"Of all accepted images those that are nearest to a training image. Copies would be seen here first.{limit}",
        pictures=(Picture(pictures, "Accepted images and the training images nearest to them, nearest first."),),
    )


def _acceptance(classes: Sequence[ClassCount]) -> Section:
    worst = [classes[at] for at in _worst_first(classes)]
    title = (
        f"Acceptance of the {_BARS} worst of {len(worst):,} classes" if len(worst) > _BARS else "Acceptance by class"
    )
    bars = plots.bars(title, "acceptance (%)", {one.name: one.acceptance for one in worst[:_BARS]})
    rejects = sum((Counter(one.rejects) for one in classes), Counter[str]())
    candidates = sum(one.candidates for one in classes)
    rows: tuple[tuple[Cell, ...], ...] = (
        (
            "accepted",
            "",
            sum(one.accepted for one in classes),
            _share(sum(one.accepted for one in classes), candidates),
        ),
        *(
            (reason, _MEANING.get(reason, ""), rejects[reason], _share(rejects[reason], candidates))
            for reason in _reasons(rejects)
        ),
        ("candidates", "", candidates, None),
    )
    return Section(
        "Acceptance",
        "The share of the candidates that passed every test"
        + (", leaving aside those behind the last that was wanted." if rejects["surplus"] else "."),
        pictures=(Picture(bars, "Lowest first."),),
        tables=(
            Table(("candidates", "why", "images", "of all"), rows, words=2, caption="Tests in the order of the rows."),
        ),
    )


def _scores(scores: GateScores) -> Section:
    spread = plots.histogram(
        "Scores of the gate",
        "score of the class that was asked for",
        {"accepted": scores.accepted, "rejected": scores.rejected},
        span=(0, 1),
        mark=None if scores.least is None else ("least score", scores.least),
    )
    return Section(
        "Scores of the gate",
        pictures=(Picture(spread, "How sure the classifier is that an image is of the class that was asked for."),),
    )


def _class_tables(classes: Sequence[ClassCount]) -> tuple[Table, ...]:
    """The counts of each class, those that most is missing of first; beside them there is no room for the reasons."""
    ordered = sorted(classes, key=lambda one: -one.shortfall)
    counts = tuple(
        (one.name, one.wanted, one.accepted, one.shortfall, one.candidates, percent(one.acceptance)) for one in ordered
    )
    columns = ("class", "wanted", "accepted", "missing", "candidates", "acceptance")
    reasons = _reasons(sum((Counter(one.rejects) for one in classes), Counter[str]()))
    if not reasons:
        return (Table(columns, counts),)
    rejects: tuple[tuple[Cell, ...], ...] = tuple(
        (one.name, *(one.rejects.get(reason, 0) for reason in reasons)) for one in ordered
    )
    return Table(columns, counts), Table(("class", *reasons), rejects, caption="Rejected candidates, by reason.")


def _reasons(rejects: Mapping[str, int]) -> list[str]:
    """Those that rejected any, in the order of the tests."""
    return [reason for reason in (*REJECTS, *sorted(set(rejects) - set(REJECTS))) if rejects.get(reason)]


def _share(part: int, total: int) -> str | None:
    return percent(part / total) if total else None
