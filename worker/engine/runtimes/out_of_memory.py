"""Recognises torch's out-of-memory errors, and gives memory back. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from contract.errors import DeviceOutOfMemory
from worker.engine.arithmetic import queueing

_SAID = (
    "not enough memory",  # torch's allocator on a CPU
    "CUDA error: out of memory",  # pinned memory, an instance of a graph, a context
    "[CUDA]: out of memory",  # Triton
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What a RuntimeError says that comes of full memory, though torch has a class for it."""


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Map torch's out-of-memory errors to DeviceOutOfMemory, without the frames that keep the batch's tensors alive."""
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        named = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not named and not any(said in str(error) for said in _SAID):
            raise
        message = f"The device has no memory for this batch ({error})."
    raise DeviceOutOfMemory(message)


def free() -> None:
    """Give unused memory of torch back to the device."""
    if torch.cuda.is_available():
        with queueing(torch.device("cuda")):
            torch.cuda.empty_cache()
