"""The candidates of a job that generated images, from its indices: counted and picked by thresholds, without a rerun.

What was accepted has a picture. A rejected candidate has its figures alone, since its file is not kept.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from contract.backend.objects import ObjectStore
from contract.data import image_index
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec, Synthesize
from contract.jobs.status import Status

MOST = 400_000
"""Candidates that are held of a job; they take about 60 MB."""
_MOST_JOBS = 4
_FRESH_SECONDS = 15.0
_COLUMNS = (
    "key",
    "label",
    "reject_reason",
    "predicted",
    "index",
    "accepted",
    "score",
    "duplicate_distance",
    "copy_distance",
    "offset",
    "size",
)
_NEGOTIABLE = ("score", "copy")
"""Reasons that another threshold may undo. What the gate takes for another class stays rejected, and what a duplicate
or surplus would have been depends on the order of all candidates."""

Distance = Literal["copy_distance", "duplicate_distance"]
Order = Literal["score", "distance"]


@dataclass(frozen=True)
class ClassCount:
    """Counts of one class: candidates, accepted images, those kept by thresholds, and rejected ones they let pass."""

    label: str
    candidates: int
    accepted: int
    kept: int
    more: int


@dataclass(frozen=True)
class Kept:
    """What thresholds keep: counts by class, and images on both sides of the edge, the nearest to it first."""

    classes: list[ClassCount]
    kept: int
    accepted: int
    more: int
    inside: list[Row]
    outside: list[Row]


@dataclass(frozen=True)
class Candidates:
    """The candidates of a job, as one table with the number of each one's shard."""

    table: pa.Table
    complete: bool
    """Whether these are all; of a larger job they are the first."""

    @property
    def scored(self) -> bool:
        return self._known("score") > 0

    @property
    def distance(self) -> Distance | None:
        """The distance that was measured: to training images, or else to accepted ones; None for neither."""
        if self._known("copy_distance"):
            return "copy_distance"
        return "duplicate_distance" if self._known("duplicate_distance") else None

    @property
    def farthest(self) -> float:
        """The largest distance of an accepted image."""
        name = self.distance
        kept = self.table.filter(self.table["accepted"])
        return float(pc.max(kept[name]).as_py() or 0.0) if name and kept.num_rows else 0.0

    @property
    def labels(self) -> list[str]:
        return sorted(pc.unique(self.table["label"]).to_pylist())

    def reasons(self) -> dict[str, int]:
        """Return the number of rejected candidates by reason, in the order of the tests."""
        counts = {one["values"]: one["counts"] for one in pc.value_counts(self.table["reject_reason"]).to_pylist()}
        return {reason: counts[reason] for reason in image_index.REJECTS if counts.get(reason)}

    def kept(self, score: float, distance: float, *, order: Order = "score", most: int = 24) -> Kept:
        """Return what these thresholds would keep; an image without a figure passes the test for it."""
        table, accepted = self.table, self.table["accepted"]
        passes = pc.and_(_least(table["score"], score), _least(table[self.distance or "copy_distance"], distance))
        kept = pc.and_(accepted, passes)
        negotiable = pc.is_in(table["reject_reason"], value_set=pa.array(_NEGOTIABLE))
        more = pc.and_(pc.and_(negotiable, passes), pc.fill_null(pc.equal(table["predicted"], table["label"]), False))
        classes = [
            ClassCount(*row)
            for row in zip(*_sums(table["label"], (pc.is_valid(table["key"]), accepted, kept, more)), strict=True)
        ]
        name = (self.distance or "copy_distance") if order == "distance" else "score"
        return Kept(
            classes=classes,
            kept=sum(one.kept for one in classes),
            accepted=sum(one.accepted for one in classes),
            more=sum(one.more for one in classes),
            inside=_first(table.filter(kept), name, "ascending", most),
            outside=_first(table.filter(pc.and_(accepted, pc.invert(passes))), name, "descending", most),
        )

    def browse(self, *, label: str, reason: str, begin: int, most: int) -> tuple[list[Row], int]:
        """Return candidates from place `begin` on, and how many there are: accepted ones, or those with a reason."""
        table = self.table
        wanted = pc.fill_null(pc.equal(table["reject_reason"], reason), False) if reason else table["accepted"]
        if label:
            wanted = pc.and_(wanted, pc.equal(table["label"], label))
        found = table.filter(wanted)
        return found.slice(begin, most).to_pylist(), found.num_rows

    def _known(self, name: str) -> int:
        return int(self.table.num_rows - self.table[name].null_count)


class Held:
    """The candidates of the jobs that were looked at lately. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, tuple[str | None, float, Candidates]] = OrderedDict()

    def of(self, store: ObjectStore, status: Status, spec: ImagesSpec) -> Candidates:
        """Return the candidates of a job, read again if it runs or ran again."""
        with self._lock:
            ended, since, found = self._held.get(status.id, (None, 0.0, None))
        fresh = status.ended or time.monotonic() - since < _FRESH_SECONDS
        if found is None or ended != status.finished_at or not fresh:
            found = read(store, spec)
            with self._lock:
                self._held[status.id] = (status.finished_at, time.monotonic(), found)
                self._held.move_to_end(status.id)
                while len(self._held) > _MOST_JOBS:
                    self._held.popitem(last=False)
        return found


def read(store: ObjectStore, spec: ImagesSpec, most: int = MOST) -> Candidates:
    """Return the first `most` candidates of a job; raises ObjectDamaged for an index that was not committed so."""
    tables: list[pa.Table] = []
    rows = 0
    for commit, index in image_index.shards(store, spec):
        if rows >= most:
            return Candidates(pa.concat_tables(tables), complete=False)
        table = index.select(_COLUMNS)
        tables.append(table.append_column("shard", pa.array([commit.shard] * table.num_rows, pa.int32())))
        rows += table.num_rows
    empty = image_index.schema().field
    schema = pa.schema([*(empty(name) for name in _COLUMNS), ("shard", pa.int32())])
    return Candidates(pa.concat_tables(tables) if tables else schema.empty_table(), complete=True)


def thresholds_of(spec: ImagesSpec) -> tuple[float, float]:
    """Return the thresholds that a job was run with: score, and distance to training images, or else accepted ones."""
    if not isinstance(spec, Synthesize):
        return 0.0, 0.0
    return spec.min_score, spec.copy_distance if spec.away_from else spec.dedup or 0.0


def step_of(value: float, end: float) -> float:
    """Return the step of a slider from 0 to `end` that can stand at `value`: about 200 of them, or smaller ones.

    A browser moves a slider to the nearest step, which would start it off the threshold that is shown.
    """
    return value / max(1, round(200 * value / end)) if value else end / 200


def _least(column: pa.ChunkedArray, value: float) -> pa.ChunkedArray:
    # Columns are float32, and a threshold that a person typed is not.
    return pc.fill_null(pc.greater_equal(column, pa.scalar(value, pa.float32())), True)


def _sums(labels: pa.ChunkedArray, flags: Sequence[pa.ChunkedArray]) -> list[list[str] | list[int]]:
    names = [str(n) for n in range(len(flags))]
    table = pa.table([labels, *(flag.cast(pa.int64()) for flag in flags)], ["label", *names])
    # On this thread alone, as in `contract.data.parquet`.
    found = table.group_by("label", use_threads=False).aggregate([(name, "sum") for name in names])
    found = found.sort_by("label")
    return [found["label"].to_pylist(), *(found[f"{name}_sum"].to_pylist() for name in names)]


def _first(table: pa.Table, name: str, order: Literal["ascending", "descending"], most: int) -> list[Row]:
    places = pc.select_k_unstable(table, most, [(name, order)]) if table.num_rows else []
    return list(table.take(places).to_pylist()) if table.num_rows else []
