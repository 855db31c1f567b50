"""How torch computes on CUDA: settings of the process that decide the last bits of a result. Imports torch."""

from __future__ import annotations

import os

import torch

_WORKSPACE = ":4096:8"
"""Without a workspace of its own for each stream, cuBLAS may choose another sum (cuBLAS, "Results Reproducibility")."""


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
