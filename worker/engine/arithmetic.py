"""How torch computes on CUDA: settings of the process that decide the last bits of a result. Imports torch."""

from __future__ import annotations

import torch


def settle() -> None:
    """Make results depend on inputs, weights and shapes alone, not on what this process ran before.

    cuDNN's benchmark picks the algorithm that was fastest at the first batch of a shape, another one in another
    process; and TF32 rounds the factors of products in fp32 to 10 bits. Every runtime, generator and training calls
    this when it is loaded, so that their order does not matter.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
