"""Summarize the rows of a classify job shard by shard, in the memory of one shard and the counts."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.data.label_rows import ERROR, OK
from contract.jobs.status import ShardCommit
from worker.pictures import plots

LEAST_CERTAIN = 24
"""How many images are shown, the least certain first."""
EDGES: NDArray[np.float64] = np.linspace(0, 1, plots.BINS + 1)
"""The edges of the bins of scores."""


@dataclass(frozen=True, slots=True, order=True)
class Doubt:
    """A labelled image that may be shown as uncertain; ordered by score, then by place."""

    score: float
    shard: int
    place: int
    key: str = field(compare=False)
    uri: str = field(compare=False)
    sha256: str = field(compare=False)
    label: str = field(compare=False)
    second: tuple[str, float] | None = field(default=None, compare=False)
    """The second label and its score, if the job kept more than one."""


@dataclass(slots=True)
class Work:
    """What one worker did with one runtime and one decoder."""

    shards: int = 0
    images: int = 0
    seconds: float = 0.0
    """The durations of the shards added up; several run at once."""


@dataclass
class Summary:
    """What a page shows of the rows, gathered shard by shard."""

    ok: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The key and message of the first image with each error code."""
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(plots.BINS, np.int64))
    """The number of scores in each bin between 0 and 1."""
    doubts: list[Doubt] = field(default_factory=list)
    """The least certain images in order; files with the same sha256 appear once."""
    work: dict[tuple[str, str], Work] = field(default_factory=dict)
    """Work by worker and runtime."""

    def add(self, commit: ShardCommit, table: pa.Table) -> None:
        """Add the rows of a shard, a table with the columns of `contract.data.label_rows`."""
        runtime = f"{commit.runtime}/{commit.precision}".strip("/")
        with_decoder = f"{runtime}, {commit.decoder}" if commit.decoder else runtime
        done = self.work.setdefault((commit.worker, with_decoder), Work())
        done.shards += 1
        done.images += commit.items
        done.seconds += commit.seconds
        failed = table.select(["key", "error_code", "error_message"]).filter(pc.equal(table["status"], ERROR))
        for row in failed.to_pylist():
            self.codes[row["error_code"]] += 1
            self.examples.setdefault(row["error_code"], (row["key"], row["error_message"]))
        good = table.select(["key", "uri", "sha256", "label", "score", "top_k"]).filter(pc.equal(table["status"], OK))
        self.ok += len(good)
        for label in pc.value_counts(good["label"]).to_pylist():
            self.labels[label["values"]] += label["counts"]
        scores = good["score"].to_numpy()
        self.scores += np.histogram(scores.clip(0, 1), EDGES)[0]  # a softmax may be 1.0000001
        self._doubt(commit.shard, good, scores)

    def _doubt(self, shard: int, good: pa.Table, scores: NDArray[np.float32]) -> None:
        digests = good["sha256"].to_pylist()
        known = {doubt.sha256 for doubt in self.doubts}
        for place in np.argsort(scores, kind="stable").tolist():
            score = float(scores[place])
            if len(self.doubts) == LEAST_CERTAIN and score >= self.doubts[-1].score:
                return
            if digests[place] in known:
                continue
            (row,) = good.slice(place, 1).to_pylist()
            second = [(top["label"], top["score"]) for top in row["top_k"] or ()][1:2]
            doubt = Doubt(score, shard, place, row["key"], row["uri"], row["sha256"], row["label"], *second)
            insort(self.doubts, doubt)
            known.add(doubt.sha256)
            del self.doubts[LEAST_CERTAIN:]
