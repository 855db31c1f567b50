"""Records the kernels of a model as a CUDA graph, which starts them together. It knows no batches. Imports torch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Model = Callable[[Tensor], tuple[Tensor, Tensor]]
"""uint8 [n, h, w, 3] on the device to logits [n, classes] and features [n, d], float32, on the same device."""


def recorded(model: Model, pixels: Tensor, stream: torch.cuda.Stream) -> Model | None:
    """Record a model for inputs of the shape of `pixels`; return what replays it on `stream`.

    The tensors of a graph have memory of their own, which is free again once nobody holds what is returned. Where that
    memory is missing, return the model itself, to be run as it is. Return None for one that can never be recorded,
    such as one that looks at its own values. The caller holds `worker.engine.arithmetic.queueing`.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    static = pixels.clone()
    stream.synchronize()
    try:
        # Other threads of the process may use the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            outputs = model(static)
    except torch.OutOfMemoryError as error:
        log.info("The model runs without a CUDA graph of batches of %d: %s", len(pixels), error)
        return model
    except Exception as error:
        log.info("The model runs without CUDA graphs: %s", error)
        _abandon(pixels.device, pool)
        return None

    def replay(pixels: Tensor) -> tuple[Tensor, Tensor]:
        static.copy_(pixels)
        graph.replay()
        return outputs

    return replay


def _abandon(device: torch.device, pool: tuple[int, int]) -> None:
    """Tell torch's allocator that a recording is over that CUDA has declared invalid.

    `CUDAGraph::capture_end` (torch 2.13) raises before it does so itself. The allocator would then give back no memory
    for the rest of the process, and `empty_cache` would fail.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    with suppress(Exception):  # it was told, by another version of torch
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)
