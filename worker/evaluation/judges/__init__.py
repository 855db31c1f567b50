"""Judge a model by labelled images: a judge a task. What they share is here; none of them knows a job's books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.jobs.specs import Evaluate
from contract.models.registry import Model
from worker.datasets.dataset import Dataset
from worker.datasets.reader import DatasetReader
from worker.engine.runtime import Output, Runtime
from worker.execution.leases import Lease
from worker.execution.model_cache import Models
from worker.pages.page import Section


@dataclass(frozen=True)
class Case:
    """What is to be judged, and what there is to do it with."""

    spec: Evaluate
    model: Model
    lease: Lease
    reader: DatasetReader
    models: Models
    plan: Callable[[int, Counter[str]], None]
    """To be told once the data is read how many images there are to do, and what was left out, by error code."""

    def seen(self, images: int) -> None:
        """Tell that so many images are read. Raises JobStopped or LeaseLost."""
        self.lease.progress(0, 0, {"read": images})
        self.lease.check()


@dataclass(frozen=True)
class Judgement:
    """What a judge found: all figures as JSON, those that `show` prints, and the sections of the page."""

    figures: bytes
    metrics: dict[str, float]
    data: str
    sections: Sequence[Section]
    runtime: str
    precision: str


def forward(
    runtime: Runtime,
    data: Dataset,
    advance: Callable[[int], None],
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda pixels: pixels,
) -> Iterator[Output]:
    """What a model says of the images of `data`, batch by batch, as many at a time as keep the runtime busy.

    `prepare` makes pixels of the data what the runtime takes; `advance` is told of how many images each batch was.
    """
    starts = range(0, len(data), runtime.batch_size)

    def run(start: int) -> Output:
        rows = slice(start, start + runtime.batch_size)
        lengths = () if data.lengths is None else (data.lengths[rows],)
        return runtime.submit(prepare(data.images[rows]), *lengths).result()

    with ThreadPoolExecutor(runtime.lanes) as pool:
        for output in pool.map(run, starts):
            advance(len(output.logits))
            yield output
