"""Runs sequence models on torch; the sequences of a batch are padded, and their lengths passed along.

When memory runs out, the batch is run again in halves.

It knows no files and no lanes. Imports torch.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from contract.errors import DeviceOutOfMemory
from worker.engine.arithmetic import settle
from worker.engine.precision import precision_on
from worker.engine.programs.graph import SequenceGraph, load_family
from worker.engine.runtimes.out_of_memory import free, out_of_memory
from worker.engine.types import ModelSpec, Output, Precision

_CPU_BATCH, _CUDA_BATCH = 8, 64


class SequenceRuntime:
    """A Runtime of sequences. One device thread computes, so that decoding threads need not wait."""

    name = "torch"

    def __init__(self, spec: ModelSpec, *, device: str, precision: str, threads: int, batch_size: int) -> None:
        place = torch.device(device)
        self.device = device
        self.lanes = threads
        self.batch_size = batch_size or (_CPU_BATCH if place.type == "cpu" else _CUDA_BATCH)
        # On a CPU bf16 is slower here: 434 sequences/s of 16 small frames; fp32 does 543.
        asked = "fp32" if precision == "auto" and place.type == "cpu" else precision
        self.precision: Precision = precision_on(place, asked)
        self._place = place
        settle(place)
        self._graph = SequenceGraph(load_family(spec), mean=spec.mean, std=spec.std, channels=spec.channels)
        with out_of_memory():
            self._graph.eval().requires_grad_(False).on(place, self.precision)
        self._threads = threads
        self._thread = ThreadPoolExecutor(1, "imagemill-device")
        frames = np.zeros((1, 2, spec.size, spec.size, 3), np.uint8)
        self.submit(frames, np.array([2], np.int64)).result()

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        """Run n sequences, uint8 [n, t, size, size, 3], of which the first `lengths` [n] frames are real."""
        assert lengths is not None, "a runtime of sequences"
        return self._thread.submit(self._infer, pixels, lengths)

    def close(self) -> None:
        self._thread.shutdown()

    def _infer(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64]) -> Output:
        if self._place.type == "cpu":
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode(), out_of_memory():
                logits, features = self._graph(
                    torch.from_numpy(pixels).to(self._place), torch.from_numpy(lengths).to(self._place)
                )
                return Output(logits.cpu().numpy(), features.cpu().numpy())
        except DeviceOutOfMemory:
            if len(pixels) == 1:
                raise DeviceOutOfMemory(
                    "The device has no memory for a single sequence; stop other processes that use it, or use a "
                    "smaller model."
                ) from None
        free()
        middle = len(pixels) // 2
        first, second = self._infer(pixels[:middle], lengths[:middle]), self._infer(pixels[middle:], lengths[middle:])
        return Output(np.concatenate([first.logits, second.logits]), np.concatenate([first.features, second.features]))
