"""Moves a batch to a device, computes, and moves the answer back, without waiting in between. Imports torch.

It knows no model. On a CPU the batch is computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.arithmetic import queueing
from worker.engine.images.regions import Allocate
from worker.engine.runtimes.out_of_memory import out_of_memory

Forward = Callable[[Sequence[Tensor]], tuple[Tensor, Tensor]]
"""Arrays of a batch on the device to logits and features, float32, on the same device."""

Answer = Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]]

Queue = Callable[[Sequence[NDArray[Any]], Forward], Answer]
"""Starts a batch of arrays; the returned function waits for its logits and features.

The arrays must stay as they are until then, so that function keeps them alive: whoever gave them need not, and memory
that is handed out anew once nobody holds it is never written while it is copied. Both raise DeviceOutOfMemory.
"""


def allocate_on(device: torch.device) -> Allocate:
    """Return what makes arrays with any content that a device can copy without the CPU: pinned ones for a GPU."""
    if device.type != "cuda":
        return np.empty

    def pinned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        with torch.cuda.device(device):  # pinning opens a context on the current device
            found: NDArray[Any] = torch.empty(shape, dtype=kind, pin_memory=True).numpy()
        return found

    return pinned


def queue_on(device: torch.device) -> Queue:
    """Return what runs batches on a device: on CUDA by streams of its own, elsewhere at once."""
    return CudaQueue(device) if device.type == "cuda" else _at_once


def _at_once(arrays: Sequence[NDArray[Any]], forward: Forward) -> Answer:
    with torch.inference_mode(), out_of_memory():
        logits, features = forward([torch.from_numpy(array) for array in arrays])
    return lambda: (logits.numpy(), features.numpy())


class CudaQueue:
    """Copies on one stream while it computes on another, so that a batch travels while the one before computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies, self._computes = torch.cuda.Stream(device), torch.cuda.Stream(device)
        # The weights were laid out on another stream. To wait for the whole device would spoil a recording elsewhere.
        self._computes.wait_stream(torch.cuda.current_stream(device))

    def __call__(self, arrays: Sequence[NDArray[Any]], forward: Forward) -> Answer:
        with torch.inference_mode(), torch.cuda.device(self._device), out_of_memory(), queueing(self._device):
            # Torch hands pinned memory of its own out again only after the copies that it saw have ended. It does not
            # see those from an array of numpy, which `held` keeps.
            held = [_pinned(torch.from_numpy(array)) for array in arrays]
            with torch.cuda.stream(self._copies):
                moved = [tensor.to(self._device, non_blocking=True) for tensor in held]
            self._computes.wait_stream(self._copies)
            with torch.cuda.stream(self._computes):
                found = forward(moved)
                told = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in found]
                for host, part in zip(told, found, strict=True):
                    host.copy_(part, non_blocking=True)
                done = torch.cuda.Event(blocking=True)  # waits without a core, which decodes meanwhile
                done.record(self._computes)

        def wait() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            with out_of_memory():
                done.synchronize()
            held.clear()
            moved.clear()  # or their memory, that of one stream, would be written anew while the other one reads it
            logits, features = (host.numpy().copy() for host in told)
            return logits, features

        return wait


def _pinned(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_pinned() else tensor.pin_memory()
