"""Runs sequence models on torch; the sequences of a batch are padded, and their lengths passed along.

On a GPU a batch is copied from pinned memory while the one before it computes; when memory runs out, batches are
halved, as those of images are. It knows no files and no lanes. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.arithmetic import settle
from worker.engine.precision import precision_on
from worker.engine.programs.graph import SequenceGraph, load_family
from worker.engine.runtimes.batcher import Batcher, Wait, buckets
from worker.engine.runtimes.out_of_memory import free, out_of_memory
from worker.engine.runtimes.queued import Queue, allocate_on, queue_on
from worker.engine.types import ModelSpec, Output, Precision

_CPU_BATCH, _CUDA_BATCH = 8, 64


@dataclass(frozen=True, slots=True)
class Sequences:
    """`pixels` uint8 [n, t, size, size, 3], of which the first `lengths` int64 [n] frames are real."""

    pixels: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, at: slice) -> Sequences:
        return Sequences(self.pixels[at], self.lengths[at])


class SequenceRuntime:
    """A Runtime of sequences. One device thread computes, so that decoding threads need not wait."""

    name = "torch"
    resizes = False

    def __init__(self, spec: ModelSpec, *, device: str, precision: str, threads: int, batch_size: int) -> None:
        place = torch.device(device)
        cuda = place.type == "cuda"
        self.device = device
        self.lanes = threads
        batch_size = batch_size or (_CUDA_BATCH if cuda else _CPU_BATCH)
        # On a CPU bf16 is slower here: 434 sequences/s of 16 small frames; fp32 does 543.
        asked = precision if cuda or precision != "auto" else "fp32"
        self.precision: Precision = precision_on(place, asked)
        self.allocate = allocate_on(place)
        settle(place)
        graph = SequenceGraph(load_family(spec), mean=spec.mean, std=spec.std, channels=spec.channels)
        with out_of_memory():
            graph.eval().requires_grad_(False).on(place, self.precision)
            queue = queue_on(place)
        launch = SequenceLaunch(graph, queue, sizes=buckets(batch_size) if cuda else (), threads=0 if cuda else threads)
        self._batcher = Batcher(launch, batch_size=batch_size, depth=2 if cuda else 1, free=free, row="sequence")
        frames = np.zeros((1, 2, spec.size, spec.size, 3), np.uint8)
        try:
            self.submit(frames, np.array([2], np.int64)).result()
        except BaseException:
            self.close()  # its thread would keep the weights for ever
            raise

    @property
    def batch_size(self) -> int:
        return self._batcher.batch_size

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        """Run n sequences, uint8 [n, t, size, size, 3], of which the first `lengths` [n] frames are real."""
        assert lengths is not None, "a runtime of sequences"
        return self._batcher.submit(Sequences(pixels, lengths))

    def close(self) -> None:
        self._batcher.close()


class SequenceLaunch:
    """Starts a batch of sequences on a queue, those with fewer frames padded at their end.

    With `sizes` the batch is padded to one of them by sequences that nobody reads, so that the kernels of few shapes
    are chosen; `threads` is how many a CPU computes on, 0 being no CPU.
    """

    def __init__(self, graph: SequenceGraph, queue: Queue, *, sizes: tuple[int, ...] = (), threads: int = 0) -> None:
        self._graph, self._queue = graph, queue
        self._sizes, self._threads = sizes, threads

    def __call__(self, parts: Sequence[Sequences]) -> Wait:
        if self._threads:
            torch.set_num_threads(self._threads)  # holds for a thread: that of the device
        n = sum(map(len, parts))
        lengths = np.concatenate([part.lengths for part in parts])
        answer = self._queue([*(part.pixels for part in parts), lengths], self._forward)

        def wait() -> Output:
            logits, features = answer()
            return Output(logits[:n], features[:n])

        return wait

    def _forward(self, moved: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        *parts, lengths = moved
        n, frames = len(lengths), max(part.shape[1] for part in parts)
        rows = next((size for size in self._sizes if size >= n), n)
        first = parts[0]
        if len(parts) == 1 and rows == n:
            return self._answer(first, lengths)
        whole = first.new_zeros((rows, frames, *first.shape[2:]))
        at = 0
        for part in parts:
            whole[at : at + len(part), : part.shape[1]] = part
            at += len(part)
        read = lengths.new_ones(rows)
        read[:n] = lengths
        return self._answer(whole, read)

    def _answer(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self._graph(frames, lengths)
        return logits, features
