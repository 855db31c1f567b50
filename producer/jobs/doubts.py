"""Finds the images of a job of whose labels the model was least sure, from its rows alone: nothing runs again."""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from contract.backend.objects import ObjectStore
from contract.data.label_rows import OK
from contract.jobs import results
from contract.jobs.results import Row
from contract.jobs.reviews.records import image_id

By = Literal["margin", "entropy"]
MOST_SHARDS = 256
"""Shards that are looked through, at most: a million images of a large job, in seconds."""


@dataclass(frozen=True)
class Doubt:
    """An image, and how sure the model was of it."""

    certainty: float
    """The margin between the two best classes, 0 to 1; or minus the entropy in nats."""
    shard: int
    row: Row
    why: str = ""
    """What makes it doubtful, in a sentence, if that is not the certainty."""

    @property
    def image(self) -> str:
        return image_id(self.row["key"], self.row["uri"])


def least_certain(
    store: ObjectStore,
    job: str,
    most: int,
    *,
    by: By = "margin",
    without: Container[str] = (),
    among: Container[str] | None = None,
) -> list[Doubt]:
    """Return at most `most` images of a job, the least certain first, but for the images `without`.

    With `among`, return those images alone.

    Of equals, the earlier one comes first. One shard is in memory at a time.
    """
    held: list[tuple[float, int, Doubt]] = []
    count = 0
    for commit, table in islice(results.tables(store, job), MOST_SHARDS):
        fine = table.filter(pc.equal(table["status"], OK))
        for place, certainty in enumerate(_certainties(fine, by)):
            count -= 1
            if len(held) == most and (-certainty, count) <= held[0][:2]:
                continue
            doubt = Doubt(certainty, commit.shard, _row(fine, place))
            if doubt.image in without or (among is not None and doubt.image not in among):
                continue
            (heapq.heappush if len(held) < most else heapq.heapreplace)(held, (-certainty, count, doubt))
    return [doubt for _, _, doubt in sorted(held, key=lambda one: one[:2], reverse=True)]


def against_neighbours(
    store: ObjectStore,
    job: str,
    table: pa.Table,
    most: int,
    *,
    without: Container[str] = (),
    among: Container[str] | None = None,
) -> list[Doubt]:
    """Return at most `most` images whose label is another than that of most of their nearest images, by `table`.

    `table` is that of `contract.jobs.reviews.neighbours`. First come those of which the model was surest, and the most
    neighbours say something else: by the product of both.
    """
    odd = table.filter(pc.greater(table["share"], 0.5))
    found: dict[str, tuple[float, int, str]] = {}
    for one in odd.to_pylist():
        image = image_id(one["key"], one["uri"])
        if image not in without and (among is None or image in among):
            why = f"{one['share']:.0%} of the nearest images carry another label, most of them {one['against']}."
            found[image] = (-one["share"] * one["score"], one["shard"], why)
    first = heapq.nsmallest(most, found.items(), key=lambda one: one[1][0])
    wanted, shards = dict(first), {shard for _, (_, shard, _) in first}
    doubts: list[Doubt] = []
    for commit, rows in results.tables(store, job, only=shards):
        fine = rows.filter(pc.equal(rows["status"], OK)).drop_columns(["embedding"]).to_pylist()
        found_here = ((row, wanted.get(image_id(row["key"], row["uri"]))) for row in fine)
        doubts += [Doubt(one[0], commit.shard, row, one[2]) for row, one in found_here if one is not None]
    return sorted(doubts, key=lambda doubt: doubt.certainty)


def certainty_of(scores: Sequence[float], by: By) -> float:
    """Return how sure a model was that gave its best classes these probabilities, the largest first."""
    if by == "margin":
        return scores[0] - (scores[1] if len(scores) > 1 else 0.0) if scores else 0.0
    rest = max(0.0, 1.0 - sum(scores))
    return sum(p * math.log(p) for p in (*scores, rest) if p > 0)


def _certainties(table: pa.Table, by: By) -> list[float]:
    lists = table["top_k"].combine_chunks() if table.num_rows else pa.array([], table["top_k"].type)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_pylist()
    scores = pc.struct_field(pc.list_flatten(lists), "score").to_pylist()
    found, at = [], 0
    for length in lengths:
        found.append(certainty_of(scores[at : at + length], by))
        at += length
    return found


def _row(table: pa.Table, place: int) -> Row:
    (row,) = table.slice(place, 1).to_pylist()
    row.pop("embedding", None)
    return dict(row)
