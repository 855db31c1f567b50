"""Judge a model by labelled images, with one judge for each task. Judges know neither ledger nor store."""

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
from worker.engine.types import Output, Runtime
from worker.execution.leases import Lease
from worker.execution.model_cache import Models
from worker.pages.page import Section


@dataclass(frozen=True)
class Case:
    """The model to judge, and what a judge needs to do it."""

    spec: Evaluate
    model: Model
    lease: Lease
    reader: DatasetReader
    models: Models
    plan: Callable[[int, Counter[str]], None]
    """Call once the data is read, with the number of images to process and the unreadable ones by error code."""

    def seen(self, images: int) -> None:
        """Report that `images` images are read. Raises JobStopped or LeaseLost."""
        self.lease.progress(0, 0, {"read": images})
        self.lease.check()


@dataclass(frozen=True)
class Judgement:
    """The result of a judge: all figures as JSON, the ones for `imagemill show`, and the sections of the page."""

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
    """Yield the model's output for the images of `data`, batch by batch, with enough batches in flight for the runtime.

    `prepare` turns pixels of the data into what the runtime takes. `advance` is called with the size of each batch.
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
