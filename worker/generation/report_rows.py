"""Gather what a page shows of generated images: counts and a few rows of the indices, then the files of these rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from contract.backend.objects import ObjectStore
from contract.data import dataset_stats, image_index
from contract.jobs.status import ShardCommit
from worker.generation.archive import Row
from worker.pages.generated import PAIRS, SHEET


@dataclass
class Gathered:
    """What a page shows, gathered from the rows of all shards."""

    rejects: dict[int, Counter[str]] = field(default_factory=dict)
    first: dict[int, list[tuple[ShardCommit, Row]]] = field(default_factory=dict)
    """The first accepted images of each class, by class index."""
    nearest: list[tuple[float, ShardCommit, Row]] = field(default_factory=list)
    scores: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    """The gate's scores of accepted and of rejected candidates."""

    def add(self, commit: ShardCommit, rows: Sequence[Row]) -> None:
        """Gather the rows of one shard."""
        for row in rows:
            label = row["label_index"]
            if row["score"] is not None:
                self.scores[0 if row["accepted"] else 1].append(row["score"])
            if not row["accepted"]:
                self.rejects.setdefault(label, Counter())[row["reject_reason"]] += 1
                continue
            self.first.setdefault(label, []).append((commit, row))
            if row["copy_distance"] is not None:
                self.nearest.append((row["copy_distance"], commit, row))
        for label, found in self.first.items():
            self.first[label] = sorted(found, key=lambda one: one[1]["index"])[:SHEET]
        self.nearest = sorted(self.nearest, key=lambda one: one[0])[:PAIRS]

    def pictured(self, counted: dataset_stats.DatasetStats) -> bool:
        """Return whether every contact sheet has its images."""
        return all(len(self.first.get(one.index, ())) >= min(SHEET, one.accepted) for one in counted.classes)


def read_files(store: ObjectStore, wanted: Sequence[tuple[ShardCommit, Row]]) -> dict[str, bytes]:
    """Return the files of accepted images by key, reading each tar once."""
    by_shard: dict[int, tuple[ShardCommit, list[Row]]] = {}
    for commit, row in wanted:
        by_shard.setdefault(commit.shard, (commit, []))[1].append(row)
    found: dict[str, bytes] = {}
    for commit, rows in by_shard.values():
        # By offset: tarfile would read the header of every member first.
        tar = image_index.read_tar(store, commit)
        found |= {row["key"]: tar[row["offset"] : row["offset"] + row["size"]] for row in rows}
    return found
