"""Groups of a job's images that a person may accept at once: those of one label that are sure, and clusters.

A group holds images that nobody has reviewed, at most as many as a verdict can name. Its digest is that of the images,
so that what is accepted is what was shown.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from contract.backend.objects import ObjectStore
from contract.data.label_rows import OK
from contract.jobs import results
from contract.jobs.reviews.records import MOST_AT_ONCE, Seen, image_id
from producer.jobs.doubts import MOST_SHARDS

MOST_GROUPS = 50
SHOWN = 6
"""Images of a group that are shown: those of which the model was least sure."""
_COLUMNS = ["key", "uri", "sha256", "label", "score", "model"]


@dataclass
class Group:
    """Images with one label of the model's."""

    label: str
    name: str
    """The label, or the number of the cluster: what names the group among others of its kind."""
    images: int = 0
    """Images that nobody has reviewed."""
    lowest: float = 1.0
    taken: list[Seen] = field(default_factory=list)
    """The first of them, as many as one verdict names; left empty where only counts are asked for."""
    model: str | None = None
    shown: list[tuple[float, int, str, str]] = field(default_factory=list)
    """The least certain: minus the score, shard, key and address."""
    _digest: int = 0
    _count: int = 0

    @property
    def accepted(self) -> int:
        """How many images would be accepted."""
        return self._count

    @property
    def digest(self) -> str:
        """Names the images that would be accepted."""
        return f"{self._digest:024x}"

    def add(self, shard: int, row: results.Row, image: str, *, keep: bool) -> None:
        """Count an image."""
        self.images += 1
        self.model = row["model"]
        if self._count == MOST_AT_ONCE:
            return
        self._count += 1
        self.lowest = min(self.lowest, row["score"])
        self._digest ^= int(hashlib.sha256(image.encode()).hexdigest()[:24], 16)
        if keep:
            self.taken.append(Seen(key=row["key"], uri=row["uri"], sha256=row["sha256"], score=row["score"]))
        # The heap begins with the surest of those shown, which leaves first.
        one = (-row["score"], shard, row["key"], row["uri"])
        (heapq.heappush if len(self.shown) < SHOWN else heapq.heappushpop)(self.shown, one)


def sure(
    store: ObjectStore, job: str, at_least: float, reviewed: Container[str], *, label: str | None = None
) -> list[Group]:
    """Return the images of each label that are at least so sure, the largest groups first.

    With `label`, return that group alone, with its images.
    """
    found: dict[str, Group] = {}
    for shard, row in _rows(store, job):
        if row["score"] < at_least or (label is not None and row["label"] != label):
            continue
        image = image_id(row["key"], row["uri"])
        if image not in reviewed:
            group = found.setdefault(row["label"], Group(row["label"], row["label"]))
            group.add(shard, row, image, keep=label is not None)
    return _largest(found)


def clusters(
    store: ObjectStore, job: str, table: pa.Table, reviewed: Container[str], *, cluster: int | None = None
) -> list[Group]:
    """Return the clusters in the table of `contract.jobs.reviews.neighbours`, the largest first.

    With `cluster`, return that one alone, with its images.
    """
    alike = table.filter(pc.is_valid(table["cluster"]))
    if cluster is not None:
        alike = alike.filter(pc.equal(alike["cluster"], cluster))
    numbers = {(one["key"], one["uri"]): one["cluster"] for one in alike.to_pylist()}
    found: dict[str, Group] = {}
    for shard, row in _rows(store, job):
        number = numbers.get((row["key"], row["uri"]))
        image = image_id(row["key"], row["uri"])
        if number is not None and image not in reviewed:
            group = found.setdefault(str(number), Group(row["label"], str(number)))
            group.add(shard, row, image, keep=cluster is not None)
    return _largest({name: one for name, one in found.items() if one.images > 1 or cluster is not None})


def _largest(found: dict[str, Group]) -> list[Group]:
    return heapq.nlargest(MOST_GROUPS, found.values(), key=lambda one: one.images)


def _rows(store: ObjectStore, job: str) -> Iterator[tuple[int, results.Row]]:
    for commit, table in islice(results.tables(store, job), MOST_SHARDS):
        fine = table.filter(pc.equal(table["status"], OK)).select(_COLUMNS)
        for row in fine.to_pylist():
            yield commit.shard, row
