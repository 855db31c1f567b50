"""Counts what a job that generates has made: candidates and accepted images of each class, and why others were not.

It reads indices (`contract.data.image_index`), one at a time; it knows neither where they are nor what becomes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """One class: `index` is the generator's, `mean_score` the gate's over the accepted ones, None without a gate."""

    index: int
    label: str
    candidates: int
    accepted: int
    mean_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """What is in the indices of a job.

    `classes` are those that have candidates, by the generator's index; their places in it number the classes of a data
    set. `rejected` counts candidates by reason, `sizes` are (width, height) of accepted images, `bytes` those of
    their files.
    """

    classes: tuple[ClassCount, ...]
    rejected: dict[str, int] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    bytes: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of a data set, in their order."""
        return tuple(found.label for found in self.classes)

    @property
    def numbers(self) -> dict[int, int]:
        """The class of a data set for each index of the generator: 0, 1, 2 … though not all classes were asked for."""
        return {found.index: number for number, found in enumerate(self.classes)}

    @property
    def accepted(self) -> int:
        return sum(found.accepted for found in self.classes)

    @property
    def candidates(self) -> int:
        return sum(found.candidates for found in self.classes)


def count(indices: Iterable[pa.Table]) -> DatasetStats:
    """The stats of these indices."""
    labels: dict[int, str] = {}
    candidates: Counter[int] = Counter()
    accepted: Counter[int] = Counter()
    scored: Counter[int] = Counter()
    scores: dict[int, float] = {}
    rejected: Counter[str] = Counter()
    sizes: set[tuple[int, int]] = set()
    size = 0
    for index in indices:
        for label, name, number in _grouped(index, ["label_index", "label"], [("key", "count")]):
            labels[label] = name
            candidates[label] += number
        kept = index.filter(index["accepted"])
        wanted = [("key", "count"), ("score", "count"), ("score", "sum")]
        for label, number, with_score, total in _grouped(kept, ["label_index"], wanted):
            accepted[label] += number
            scored[label] += with_score
            scores[label] = scores.get(label, 0.0) + (total or 0.0)
        for reason, number in _grouped(
            index.filter(pc.invert(index["accepted"])), ["reject_reason"], [("key", "count")]
        ):
            rejected[str(reason)] += number
        sizes.update((width, height) for width, height in _grouped(kept, ["width", "height"], []))
        size += pc.sum(kept["size"]).as_py() or 0
    classes = tuple(
        ClassCount(
            index=label,
            label=labels[label],
            candidates=candidates[label],
            accepted=accepted[label],
            mean_score=scores[label] / scored[label] if scored[label] else None,
        )
        for label in sorted(labels)
    )
    return DatasetStats(classes=classes, rejected=dict(rejected), sizes=tuple(sorted(sizes)), bytes=size)


def _grouped(table: pa.Table, keys: list[str], wanted: list[tuple[str, str]]) -> list[tuple]:  # type: ignore[type-arg]
    """The groups of a table: their keys, then what is wanted of each."""
    # On this thread alone, as in `contract.data.parquet`.
    groups = table.group_by(keys, use_threads=False).aggregate(wanted)
    names = [*keys, *(f"{column}_{what}" for column, what in wanted)]
    return list(zip(*(groups[name].to_pylist() for name in names), strict=True))
