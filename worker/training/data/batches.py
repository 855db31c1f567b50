"""Batches of a training: which examples, in which order, and how they come to the device.

The order follows from (seed, epoch) alone. It knows no recipe, no model and no augmentation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.data.sequences import spread
from worker.datasets.dataset import Dataset
from worker.training.randomness import seeded


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one step. Pixels lie in memory as they do in the data: channels last."""

    pixels: Tensor
    """uint8 [b, c, h, w], or of sequences [b, t, c, h, w]."""
    labels: Tensor
    """int64 [b]."""
    lengths: Tensor | None
    """int64 [b] of sequences, else None."""
    index: Tensor
    """int64 [b]: which examples of the data they are."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Batch:
        """Return this batch on a device. A copy to a GPU is made from pinned memory, so that no thread waits for it."""
        if device.type == "cpu":
            return self
        lengths = None if self.lengths is None else _send(self.lengths, device)
        return Batch(_send(self.pixels, device), _send(self.labels, device), lengths, _send(self.index, device))


def steps_an_epoch(examples: int, batch_size: int) -> int:
    """Into how many batches the examples are cut: as few as hold `batch_size` each, and none of a single one.

    They are cut evenly, so that sizes differ by at most one and each example weighs the same; a norm cannot be
    trained on a batch of one.
    """
    steps = -(-examples // batch_size)
    return steps if examples // steps > 1 else max(1, examples // 2)


def cut(examples: int, steps: int, step: int) -> int:
    """Return the number of examples of an epoch that come before its step `step`."""
    return step * examples // steps


def batches(data: Dataset, *, batch_size: int, seed: int, epoch: int, first: int = 0) -> Iterator[Batch]:
    """Yield the batches of an epoch from its step `first`; every example once, shuffled by (seed, epoch)."""
    order = torch.randperm(len(data), generator=seeded(seed, "order", epoch)).numpy()
    steps = steps_an_epoch(len(data), batch_size)
    for step in range(first, steps):
        yield take(data, order[cut(len(data), steps, step) : cut(len(data), steps, step + 1)])


def take(data: Dataset, index: NDArray[np.int64]) -> Batch:
    """Return the examples with these numbers, copied out of the data."""
    pixels = torch.from_numpy(data.images[index])
    return Batch(
        pixels=pixels.movedim(-1, -3),
        labels=torch.from_numpy(data.labels[index]),
        lengths=None if data.lengths is None else torch.from_numpy(data.lengths[index]),
        index=torch.from_numpy(index),
    )


def in_order(data: Dataset, batch_size: int) -> Iterator[Batch]:
    """Yield all examples in the order of the data, `batch_size` at a time, for validation."""
    for start in range(0, len(data), batch_size):
        yield take(data, np.arange(start, min(start + batch_size, len(data))))


def ahead(source: Iterable[Batch], depth: int = 2) -> Generator[Batch, None, None]:
    """Yield the same batches, making up to `depth` of them on a thread while the device is busy with one.

    A page of a memory-mapped file that has to come from the disk is then not waited for. Close the iterator to end
    the thread before the source is used up.
    """
    batches = iter(source)
    with ThreadPoolExecutor(1, "batches") as thread:
        coming: deque[Future[Batch | None]] = deque(thread.submit(next, batches, None) for _ in range(depth))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, batches, None))
            yield batch


def normalized(pixels: Tensor) -> Tensor:
    """Pixels 0 to 255 as float32 within −1 to 1: (x − 127.5) / 127.5."""
    return (pixels.float() - 127.5).div_(127.5)


def thinned(batch: Batch, frames: int) -> Batch:
    """Sequences of more than `frames` thinned out evenly to so many, and none padded beyond the longest of the batch.

    Which frames stay is what `contract.data.sequences.spread` says, here as wherever a model looks at a sequence.
    """
    assert batch.lengths is not None
    pixels, longest = batch.pixels.movedim(2, -1), int(batch.lengths.max())  # as they lie in memory, to be copied so
    if longest <= frames:
        pixels = pixels[:, :longest].contiguous()
    else:
        places = torch.tensor([spread(max(length, frames), frames) for length in batch.lengths.tolist()])
        pixels = pixels[torch.arange(len(batch))[:, None], places]
    return replace(batch, pixels=pixels.movedim(-1, 2), lengths=batch.lengths.clamp(max=frames))


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)
