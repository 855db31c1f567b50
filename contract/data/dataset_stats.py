"""Counts the images of a job: candidates and accepted images of each class, and the reasons for rejection.

It reads indices (`contract.data.image_index`) one at a time, and does not know where they are stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Counts of one class: `index` is that of the generator, `mean_score` the gate's over accepted images, if any."""

    index: int
    label: str
    candidates: int
    accepted: int
    mean_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """What the indices of a job hold.

    `classes` are the classes that have candidates, ordered by the generator's index; their positions are the class
    numbers of the dataset. `rejected` counts candidates by reason, `sizes` are the (width, height) of accepted images,
    and `bytes` is the size of their files.
    """

    classes: tuple[ClassCount, ...]
    rejected: dict[str, int] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    bytes: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names of the dataset, by number."""
        return tuple(found.label for found in self.classes)

    @property
    def numbers(self) -> dict[int, int]:
        """Class number of the dataset for each index of the generator: 0, 1, 2, … even if classes were left out."""
        return {found.index: number for number, found in enumerate(self.classes)}

    @property
    def accepted(self) -> int:
        return sum(found.accepted for found in self.classes)

    @property
    def candidates(self) -> int:
        return sum(found.candidates for found in self.classes)


def count(indices: Iterable[pa.Table]) -> DatasetStats:
    """Count the rows of `indices`."""
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
    """Group a table; return the keys of each group, then its `wanted` aggregates."""
    # On this thread alone, as in `contract.data.parquet`.
    groups = table.group_by(keys, use_threads=False).aggregate(wanted)
    names = [*keys, *(f"{column}_{what}" for column, what in wanted)]
    return list(zip(*(groups[name].to_pylist() for name in names), strict=True))
