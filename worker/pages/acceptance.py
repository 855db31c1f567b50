"""How many candidates of each class were accepted, and why the others were rejected: a plot and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from contract.data.image_index import REJECTS
from worker.pages.page import Cell, Picture, Section, Table, percent
from worker.pictures import plots

_BARS = 40  # more cannot be read
MEANING = {
    "class": "the gate predicts another class",
    "score": "the gate's score is too low",
    "copy": "too near to a training image",
    "duplicate": "too near to an image accepted before it",
    "surplus": "not needed: the class was complete",
}


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many images of a class were wanted, generated and accepted, and why the others were rejected."""

    name: str
    wanted: int
    accepted: int
    candidates: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    """Rejected candidates by reason (`contract.data.image_index.REJECTS`); a missing reason counts as 0."""

    @property
    def shortfall(self) -> int:
        return max(0, self.wanted - self.accepted)

    @property
    def acceptance(self) -> float | None:
        """The share of the candidates that were accepted, from 0 to 1, excluding surplus candidates."""
        judged = self.candidates - self.rejects.get("surplus", 0)
        return self.accepted / judged if judged else None


def section(classes: Sequence[ClassCount]) -> Section:
    """Return the section on what the tests accepted and rejected, over all classes."""
    worst = [classes[at] for at in worst_first(classes)]
    which = f"the {_BARS} lowest of {len(worst):,} classes" if len(worst) > _BARS else "lowest first"
    bars = plots.bars("", "acceptance (%)", {one.name: one.acceptance for one in worst[:_BARS]})
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
            (reason, MEANING.get(reason, ""), rejects[reason], _share(rejects[reason], candidates))
            for reason in _reasons(rejects)
        ),
        ("candidates", "", candidates, None),
    )
    return Section(
        "Acceptance",
        "The share of the candidates that passed every test"
        + (", excluding surplus candidates." if rejects["surplus"] else "."),
        pictures=(Picture(bars, f"Acceptance by class, {which}."),),
        tables=(
            Table(
                ("candidates", "why", "images", "of all"),
                rows,
                words=2,
                caption="The tests in their order; a candidate counts for the first test that it fails.",
            ),
        ),
    )


def class_tables(classes: Sequence[ClassCount]) -> tuple[Table, ...]:
    """Return the counts of each class, largest shortfall first, and its rejects, in a second table for want of room."""
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
    return Table(columns, counts), Table(("class", *reasons), rejects, caption="Rejected candidates by reason.")


def _reasons(rejects: Mapping[str, int]) -> list[str]:
    """Return the reasons that occur, in the order of the tests."""
    return [reason for reason in (*REJECTS, *sorted(set(rejects) - set(REJECTS))) if rejects.get(reason)]


def _share(part: int, total: int) -> str | None:
    return percent(part / total) if total else None


def worst_first(classes: Sequence[ClassCount]) -> list[int]:
    """Return places by rising acceptance; classes without candidates come first."""
    return sorted(range(len(classes)), key=lambda at: -1.0 if (a := classes[at].acceptance) is None else a)
