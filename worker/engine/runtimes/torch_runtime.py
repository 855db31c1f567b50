"""Torch on a CPU or on CUDA: channels-last, bf16 where the device has it, one device thread.

It knows no files and no lanes. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.arithmetic import queueing, settle
from worker.engine.images.regions import Regions
from worker.engine.precision import precision_on
from worker.engine.programs.graph import build
from worker.engine.runtimes.batcher import SMALL, Batcher, Launch, Wait, buckets
from worker.engine.runtimes.out_of_memory import free, out_of_memory
from worker.engine.runtimes.queued import allocate_on
from worker.engine.runtimes.recording import Model, recorded
from worker.engine.runtimes.resize import Moved, Resize, resize_for
from worker.engine.types import ModelSpec, Output, Pixels, Precision

# On two cores bf16 does 198 images/s at a batch of 8 and 188 at 64; a GPU needs more to fill its multiprocessors.
_CPU_BATCH, _CUDA_BATCH = 8, 256

_WARM = 2
"""Sizes that are run when a model is loaded, largest first; smaller batches are rare, and cuDNN takes 3 s on an H100 to
choose the kernels of a size."""

_CPU = torch.device("cpu")


class TorchRuntime:
    """A Runtime that computes on one device thread."""

    name = "torch"

    def __init__(
        self, spec: ModelSpec, *, device: str, precision: str, threads: int, batch_size: int, resize: str = "cpu"
    ) -> None:
        place = torch.device(device)
        cuda = place.type == "cuda"
        self.device = device
        self.lanes = threads
        self.precision: Precision = precision_on(place, precision)
        settle(place)
        with out_of_memory():
            graph = build(spec).on(place, self.precision)
        batch_size = batch_size or (_CUDA_BATCH if cuda else _CPU_BATCH)
        shape = (batch_size, spec.size, spec.size, 3)
        resizer = resize_for(place, resize)
        self.resizes = resizer is not None
        """Whether images are resized where the model computes."""
        self.allocate = allocate_on(place)
        if cuda:
            with out_of_memory():
                launch: Launch[Pixels] = CudaLaunch(graph, place, shape, resizer)
        else:
            # Only the device thread computes, so it may use all cores; two such threads would collapse.
            torch.set_num_threads(threads)
            launch = CpuLaunch(graph, batch_size, resizer)
        release = launch.free if isinstance(launch, CudaLaunch) else free
        self._batcher = Batcher(launch, batch_size=batch_size, depth=2 if cuda else 1, free=release)
        self._shape, self._warm_runs = shape[1:], 2 if cuda else 1  # the second one is recorded
        for size in reversed(buckets(batch_size)[-_WARM:]):
            for _ in range(self._warm_runs):
                if size <= self.batch_size:
                    self.submit(np.zeros((size, *shape[1:]), np.uint8)).result()

    @property
    def batch_size(self) -> int:
        return self._batcher.batch_size

    def submit(self, pixels: Pixels, lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        assert lengths is None, "a runtime of images"
        return self._batcher.submit(pixels)

    def prepare(self) -> None:
        """Run the small batches once, largest first; a GPU takes seconds for a size that it has not seen."""
        for size in reversed([one for one in buckets(self.batch_size) if one <= SMALL]):
            for _ in range(self._warm_runs):
                self.submit_first(np.zeros((size, *self._shape), np.uint8)).result()

    def submit_first(self, pixels: Pixels, lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        assert lengths is None, "a runtime of images"
        return self._batcher.submit_first(pixels)

    def close(self) -> None:
        self._batcher.close()


class CpuLaunch:
    """Computes immediately; the returned function only returns the output."""

    def __init__(self, model: Model, batch_size: int, resize: Resize | None = None) -> None:
        self._model, self._resize = model, resize
        self._buckets = buckets(batch_size)

    def __call__(self, parts: Sequence[Pixels]) -> Wait:
        n = sum(map(len, parts))
        side = parts[0].size if isinstance(parts[0], Regions) else parts[0].shape[1]
        pixels = np.zeros((_bucket(n, self._buckets), side, side, 3), np.uint8)
        at = 0
        for part in parts:
            rows = pixels[at : at + len(part)]
            if isinstance(part, Regions):
                assert self._resize is not None, "a runtime that does not resize"
                self._resize(Moved.to(_CPU, part), torch.from_numpy(rows))
            else:
                rows[...] = part
            at += len(part)
        with torch.inference_mode(), out_of_memory():
            logits, features = self._model(torch.from_numpy(pixels))
        output = Output(logits[:n].numpy(), features[:n].numpy())
        return lambda: output


class CudaLaunch:
    """Queues copy in, computation and copy out on CUDA streams, and returns.

    Two slots of pinned memory alternate, so that one batch is copied in while the other computes. The caller must wait
    for batch n before it starts batch n + 2. The kernels of each size are recorded once as a CUDA graph and started
    together: decoding threads hold Python's interpreter lock too often for a hundred launches a batch.
    """

    def __init__(
        self, model: Model, device: torch.device, shape: tuple[int, int, int, int], resize: Resize | None = None
    ) -> None:
        self._model, self._resize = model, resize
        self._device = device
        self._buckets = buckets(shape[0])
        self._copies, self._computes = torch.cuda.Stream(device), torch.cuda.Stream(device)
        # Zeroed once: padding rows hold pixels of older batches, and their outputs are not read.
        with torch.cuda.device(device):  # pinning opens a context on the current device
            self._inputs = [torch.zeros(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._outputs: list[tuple[Tensor, Tensor] | None] = [None, None]
        self._seen: set[int] = set()
        self._recorded: dict[int, Model] = {}
        self._records = True
        self._turn = 0
        # The weights were laid out on another stream. To wait for the whole device would spoil a recording elsewhere.
        self._computes.wait_stream(torch.cuda.current_stream(device))

    def __call__(self, parts: Sequence[Pixels]) -> Wait:
        n = sum(map(len, parts))
        size = _bucket(n, self._buckets)
        slot, self._turn = self._turn, 1 - self._turn
        with torch.inference_mode(), torch.cuda.device(self._device), out_of_memory(), queueing(self._device):
            with torch.cuda.stream(self._copies):
                pixels = self._moved(parts, size, self._inputs[slot])
            self._computes.wait_stream(self._copies)
            with torch.cuda.stream(self._computes):
                logits, features = self._forward(size, pixels)
                targets = self._pinned(slot, logits, features)
                targets[0][:size].copy_(logits, non_blocking=True)
                targets[1][:size].copy_(features, non_blocking=True)
                done = torch.cuda.Event(blocking=True)  # waits without a core, which decodes meanwhile
                done.record(self._computes)
        held = [pixels]  # or its memory, that of one stream, would be written anew while the other one reads it

        def wait() -> Output:
            with out_of_memory():
                done.synchronize()
            held.clear()
            logits, features = self._pinned(slot)
            return Output(logits[:n].numpy().copy(), features[:n].numpy().copy())

        return wait

    def _moved(self, parts: Sequence[Pixels], size: int, staged: Tensor) -> Tensor:
        """Queue copies of a batch to the device and what resizes it there; return it, uint8 [size, side, side, 3].

        Whoever made an array in pinned memory spares its copy through `staged`. The parts must stay as they are until
        the batch was waited for; padding rows hold anything.
        """
        pixels = torch.empty((size, *staged.shape[1:]), dtype=torch.uint8, device=self._device)
        at = 0
        for part in parts:
            end = at + len(part)
            if isinstance(part, Regions):
                assert self._resize is not None, "a runtime that does not resize"
                self._resize(Moved.to(self._device, part), pixels[at:end])
            else:
                source = torch.from_numpy(part)
                if not source.is_pinned():
                    source = staged[at:end]
                    source.numpy()[...] = part
                pixels[at:end].copy_(source, non_blocking=True)
            at = end
        return pixels

    def free(self) -> None:
        """Forget the recorded graphs, which hold memory, and give what is unused back to the device."""
        for stream in (self._copies, self._computes):
            stream.synchronize()
        self._recorded.clear()
        free()

    def _forward(self, size: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the model; the second batch of a size is recorded, and later ones replay it."""
        if not self._records or size not in self._seen:
            found = self._model(pixels)
            self._seen.add(size)  # it fits
            return found
        if size not in self._recorded:
            replay = recorded(self._model, pixels, self._computes)
            self._records = replay is not None
            self._recorded[size] = replay or self._model
        return self._recorded[size](pixels)

    def _pinned(self, slot: int, *like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pinned outputs of a slot, allocated at its first batch, when their widths are known."""
        found = self._outputs[slot]
        if found is None:
            logits, features = (
                torch.empty((self._buckets[-1], tensor.shape[1]), dtype=tensor.dtype, pin_memory=True)
                for tensor in like
            )
            found = self._outputs[slot] = (logits, features)
        return found


def _bucket(n: int, sizes: tuple[int, ...]) -> int:
    return next(size for size in sizes if size >= n)
