"""Which examples a step learns from, and what shape they come in."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.worker.training.toys import images, sequences
from worker.training.data.batches import (
    Batch,
    ahead,
    batches,
    cut,
    in_order,
    normalized,
    steps_an_epoch,
    take,
    thinned,
)


@pytest.mark.parametrize(
    ("examples", "batch_size", "sizes"),
    [
        (8, 4, {4}),
        (9, 4, {3}),  # not 4, 4 and 1
        (10, 4, {3, 4}),
        (3, 2, {3}),
        (5, 2, {2, 3}),
        (2, 128, {2}),
        (1, 128, {1}),
        (54_000, 128, {127, 128}),
    ],
)
def test_an_epoch_is_cut_evenly_and_never_into_one(examples: int, batch_size: int, sizes: set[int]) -> None:
    steps = steps_an_epoch(examples, batch_size)
    cuts = [cut(examples, steps, step) for step in range(steps + 1)]
    assert (cuts[0], cuts[-1]) == (0, examples)
    assert set(np.diff(cuts).tolist()) == sizes


@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_no_batch_is_of_one(batch_size: int) -> None:
    for examples in range(2, 100):
        steps = steps_an_epoch(examples, batch_size)
        assert examples // steps >= 2, examples


def indices(found: Iterator[Batch]) -> list[list[int]]:
    return [batch.index.tolist() for batch in found]


def test_an_epoch_has_every_example_once_in_an_order_of_its_own() -> None:
    data = images(n=20)

    def order(seed: int, epoch: int, first: int = 0) -> list[list[int]]:
        return indices(batches(data, batch_size=6, seed=seed, epoch=epoch, first=first))

    once = order(seed=1, epoch=0)
    assert sorted(itertools.chain(*once)) == list(range(20))
    assert once == order(seed=1, epoch=0)
    assert once != order(seed=1, epoch=1)
    assert once != order(seed=2, epoch=0)
    assert order(seed=1, epoch=0, first=2) == once[2:], "whoever goes on in the middle gets what is left"
    assert order(seed=1, epoch=0, first=4) == []


def test_a_batch_holds_its_examples() -> None:
    data = images(n=10, size=6, channels=3)
    batch = take(data, np.array([7, 2]))
    assert batch.pixels.dtype == torch.uint8 and batch.pixels.shape == (2, 3, 6, 6)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert (batch.pixels[1].movedim(0, -1).numpy() == data.images[2]).all()
    assert (batch.labels.tolist(), batch.index.tolist(), batch.lengths) == ([1, 2], [7, 2], None)
    assert batch.to(torch.device("cpu")) is batch


def test_a_batch_of_sequences_has_their_lengths() -> None:
    data = sequences(n=10, frames=5, size=8)
    assert data.lengths is not None
    batch = take(data, np.array([3, 4, 5]))
    assert batch.pixels.shape == (3, 5, 1, 8, 8)
    assert batch.lengths is not None and batch.lengths.tolist() == data.lengths[3:6].tolist()


def test_to_validate_the_order_is_that_of_the_data() -> None:
    assert indices(in_order(images(n=7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_pixels_are_normalised() -> None:
    raw = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert normalized(raw).tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert raw.tolist() == [0, 51, 255]
    floats = torch.tensor([255.0])
    assert normalized(floats).tolist() == [1.0] and floats.tolist() == [255.0], "what came in is left alone"


def framed(lengths: list[int], t: int) -> Batch:
    """Sequences whose frames are numbered from 1, padded with 0."""
    pixels = torch.zeros(len(lengths), t, 1, 2, 2, dtype=torch.uint8)
    for one, length in enumerate(lengths):
        pixels[one, :length] = torch.arange(1, length + 1, dtype=torch.uint8)[:, None, None, None]
    index = torch.arange(len(lengths))
    return Batch(pixels, index, torch.tensor(lengths), index)


def frames(batch: Batch) -> list[list[int]]:
    assert batch.lengths is not None
    numbers = batch.pixels[:, :, 0, 1, 1]
    return [row[:length].tolist() for row, length in zip(numbers, batch.lengths, strict=True)]


def test_long_sequences_are_thinned_out_evenly() -> None:
    # Given sequences of 3, 8 and 5 frames, if no more than 4 are wanted,
    batch = thinned(framed([3, 8, 5], t=9), 4)

    # I expect the first as it was and the others evenly spread, their first and their last frame among them.
    assert frames(batch) == [[1, 2, 3], [1, 3, 6, 8], [1, 2, 4, 5]]
    assert batch.pixels.shape[1] == 4


def test_padding_beyond_the_longest_is_left_out() -> None:
    batch = thinned(framed([2, 3], t=9), 4)
    assert frames(batch) == [[1, 2], [1, 2, 3]]
    assert batch.pixels.shape[1] == 3
    assert batch.pixels.movedim(2, -1).is_contiguous(), "it is copied to a device in one piece"


def test_batches_are_made_ahead_in_the_same_order() -> None:
    data = images(n=20)
    made: list[int] = []

    def source() -> Iterator[Batch]:
        for batch in in_order(data, 4):
            made.append(int(batch.index[0]))
            yield batch

    # Given a device that is busy with the first batch,
    coming = ahead(source(), depth=2)
    first = next(coming)

    # I expect at most two more to be made meanwhile, and all to come in order,
    assert len(made) <= 3
    assert indices(iter([first, *coming])) == indices(in_order(data, 4))
    assert made == [0, 4, 8, 12, 16]


def test_who_stops_early_leaves_no_thread() -> None:
    coming = ahead(in_order(images(n=20), 4))
    next(coming)
    coming.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_a_fault_in_the_thread_comes_out_of_the_loop() -> None:
    def source() -> Iterator[Batch]:
        yield take(images(), np.arange(2))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(ahead(source()))
