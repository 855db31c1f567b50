"""How torch computes on CUDA: settings of the process that decide the last bits of a result. Imports torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WORKSPACE = ":4096:8"
"""Without a workspace of its own for each stream, cuBLAS may choose another sum (cuBLAS, "Results Reproducibility")."""

_queueing = threading.RLock()


def settle(device: torch.device) -> None:
    """Make results on CUDA depend on inputs, weights and shapes alone; on a CPU they do already.

    cuDNN's benchmark picks the algorithm that was fastest at the first batch of a shape, another one in another
    process; sums by atomic operations add in the order in which threads arrive; and TF32 rounds the factors of products
    in fp32 to 10 bits. Every runtime, generator and training calls this when it is loaded, so that their order in a
    process does not matter.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACE)  # read when the first handle is made
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    # What has no deterministic kernel warns, and the acceptance of a GPU shows whether anything of ours does.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it did not write, so it need not be filled.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def queueing(device: torch.device, *, loose: bool = False) -> Iterator[None]:
    """Hold what only one thread of a process may have that queues kernels on CUDA; on a CPU there is nothing to hold.

    While a CUDA graph is recorded, no other may be, no thread may wait for the whole device, and the allocator of torch
    gives no memory back. With `loose`, kernels queued meanwhile are the fastest ones, whatever the order of their sums:
    the settings are those of the process, and other threads need them as `settle` leaves them.
    """
    if device.type != "cuda":
        yield
        return
    with _queueing:
        if loose:
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            if loose:
                settle(device)
