"""The device thread, with a device that is a few lines of Python."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import DeviceOutOfMemory
from worker.engine.runtimes.batcher import Batcher, Wait, buckets, pieces
from worker.engine.types import Output


class Device:
    """Answers each row with its number; has room for `room` rows; `gate` holds it while it is cleared.

    Two buffers take turns, as on a GPU: who starts a third batch before the first was waited for spoils it.
    """

    def __init__(self, room: int = 1000, *, late: bool = False) -> None:
        self.batches: list[int] = []
        self.running = self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self.room, self._late = room, late
        self._buffers, self._turn = [rows(), rows()], 0

    def __call__(self, parts: Sequence[Any]) -> Wait:
        pixels = np.concatenate(parts)
        self.batches.append(len(pixels))
        fits = len(pixels) <= self.room
        if not fits and not self._late:
            raise DeviceOutOfMemory("full")
        slot, self._turn = self._turn, 1 - self._turn
        self._buffers[slot] = pixels
        self.running += 1
        self.most = max(self.most, self.running)

        def wait() -> Output:
            assert self.gate.wait(10)
            self.running -= 1
            if not fits:
                raise DeviceOutOfMemory("full")
            found = self._buffers[slot][:, 0, 0].astype(np.float32)
            return Output(found, found[:, :1])

        return wait


def rows(*numbers: int) -> NDArray[np.uint8]:
    pixels = np.zeros((len(numbers), 1, 1, 3), np.uint8)
    pixels[:, 0, 0] = np.array(numbers)[:, None]
    return pixels


def numbers(output: Output) -> list[int]:
    return [int(row[0]) for row in output.logits]


@pytest.mark.parametrize("depth", [1, 2])
def test_each_submission_gets_its_own_rows_back(depth: int) -> None:
    batcher = Batcher(Device(), batch_size=8, depth=depth)
    futures = [batcher.submit(rows(*range(n, n + 3))) for n in range(0, 90, 3)]
    assert [numbers(future.result(10)) for future in futures] == [[n, n + 1, n + 2] for n in range(0, 90, 3)]
    batcher.close()


def test_what_waits_travels_together() -> None:
    # Given a device that is busy with its first batch,
    device = Device()
    device.gate.clear()
    batcher = Batcher(device, batch_size=8, depth=1)
    first = batcher.submit(rows(0))
    while not device.batches:
        pass
    # if three lanes submit meanwhile,
    others = [batcher.submit(rows(*range(3))) for _ in range(3)]
    device.gate.set()
    for future in (first, *others):
        future.result(10)
    # I expect as many as fit in one batch, and the rest in the next.
    assert device.batches == [1, 6, 3]
    batcher.close()


def test_the_next_batch_starts_before_the_last_one_is_done() -> None:
    device = Device()
    device.gate.clear()
    batcher = Batcher(device, batch_size=2, depth=2)
    futures = [batcher.submit(rows(n, n)) for n in range(5)]
    while device.running < 2:
        pass
    device.gate.set()
    for future in futures:
        future.result(10)
    assert device.most == 2, "two buffers take turns, a third does not exist"
    batcher.close()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_full_device_gets_half_and_the_size_is_remembered(late: bool, depth: int) -> None:
    # Given a device with room for three images, whether it says so at once or only at the end,
    device = Device(3, late=late)
    batcher = Batcher(device, batch_size=16, depth=depth)
    # if I submit sixteen,
    assert numbers(batcher.submit(rows(*range(16))).result(10)) == list(range(16))
    # I expect all of them back, and no larger batch soon.
    assert batcher.batch_size == 2
    device.batches.clear()
    futures = [batcher.submit(rows(*range(n, n + 5))) for n in range(0, 50, 5)]
    assert [n for future in futures for n in numbers(future.result(10))] == list(range(50))
    assert max(device.batches) == 2
    assert device.most <= depth
    batcher.close()


def test_halving_does_not_spoil_the_batch_that_is_under_way() -> None:
    # Given a batch that will not fit and one that will, both started,
    device = Device(3, late=True)
    device.gate.clear()
    batcher = Batcher(device, batch_size=8, depth=2)
    large = batcher.submit(rows(*range(8)))
    small = batcher.submit(rows(50, 51, 52))
    while device.running < 2:
        pass
    # if the first fails and is run again in pieces, I expect the rows of both to be their own.
    device.gate.set()
    assert numbers(large.result(10)) == list(range(8))
    assert numbers(small.result(10)) == [50, 51, 52]
    batcher.close()


def test_memory_is_freed_before_a_batch_is_tried_again() -> None:
    # Given a device whose memory is taken by what the batcher's `free` lets go of,
    device = Device(3)

    def free() -> None:
        device.room = 1000

    batcher = Batcher(device, batch_size=16, depth=2, free=free)
    # if I submit more than there is room for, I expect the same size to work then, and no smaller one to be kept.
    assert numbers(batcher.submit(rows(*range(16))).result(10)) == list(range(16))
    assert device.batches == [16, 16]
    assert batcher.batch_size == 16
    batcher.close()


def test_a_failed_batch_is_let_go_of_before_the_next_try() -> None:
    """An exception that is being handled keeps its frames, and they keep tensors on the device."""
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def launch(parts: Sequence[Any]) -> Wait:
        alive.append(sum(ref() is not None for ref in held))
        tensor = np.concatenate(parts)
        held.append(weakref.ref(tensor))
        if len(tensor) > 2:
            raise DeviceOutOfMemory("full")
        return lambda: Output(tensor[:, 0, 0].astype(np.float32), tensor[:, 0, 0].astype(np.float32))

    batcher = Batcher(launch, batch_size=8, depth=1)
    assert numbers(batcher.submit(rows(*range(8))).result(10)) == list(range(8))
    assert not any(alive)
    batcher.close()


def test_a_halved_batch_grows_again_once_there_is_room() -> None:
    # Given a device that had room for two at first, and a clock that I turn,
    device, now = Device(2), [0.0]
    batcher = Batcher(device, batch_size=8, depth=1, clock=lambda: now[0])

    def submit() -> int:
        device.batches.clear()
        assert numbers(batcher.submit(rows(*range(8))).result(10)) == list(range(8))
        return max(device.batches)

    submit()
    assert batcher.batch_size == 2
    device.room = 1000
    # if no time passes, I expect no larger batch; if enough does, twice the size, then twice again.
    assert submit() == 2
    for expected in (4, 8, 8):
        now[0] += 4000
        assert submit() == expected
    batcher.close()


def test_a_device_without_room_for_one_says_so() -> None:
    batcher = Batcher(Device(0), batch_size=4, depth=2)
    with pytest.raises(DeviceOutOfMemory, match="single image"):
        batcher.submit(rows(1, 2)).result(10)
    batcher.close()


@pytest.mark.parametrize("late", [False, True])
def test_a_device_that_breaks_as_memory_is_freed_fails_its_batch_and_no_other(late: bool) -> None:
    """An error of CUDA shows at the next call, whatever that is; without its thread all batches would wait for ever."""
    device, broken = Device(3, late=late), [True]

    def free() -> None:
        if broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    batcher = Batcher(device, batch_size=8, depth=2, free=free)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        batcher.submit(rows(*range(8))).result(10)
    assert numbers(batcher.submit(rows(1, 2)).result(10)) == [1, 2]
    broken.clear()
    assert numbers(batcher.submit(rows(*range(8))).result(10)) == list(range(8))
    batcher.close()


def test_another_failure_fails_its_batch_alone() -> None:
    def launch(parts: Sequence[Any]) -> Wait:
        if parts[0][0, 0, 0, 0] == 13:
            raise RuntimeError("the device fell off the bus")
        return device(parts)

    device = Device()
    batcher = Batcher(launch, batch_size=1, depth=2)
    good, bad, again = (batcher.submit(rows(n)) for n in (1, 13, 2))
    assert numbers(good.result(10)) == [1]
    with pytest.raises(RuntimeError, match="bus"):
        bad.result(10)
    assert numbers(again.result(10)) == [2]
    batcher.close()


def test_closing_serves_what_was_submitted() -> None:
    batcher = Batcher(Device(), batch_size=2, depth=2)
    futures = [batcher.submit(rows(n)) for n in range(9)]
    batcher.close()
    assert [numbers(future.result(0)) for future in futures] == [[n] for n in range(9)]


def test_batches_have_few_sizes() -> None:
    assert buckets(256) == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert buckets(8) == (1, 2, 4, 8)
    assert buckets(12) == (1, 3, 6, 12)
    assert buckets(1) == (1,)


@pytest.mark.parametrize("depth", [1, 2])
def test_what_somebody_waits_for_goes_before_what_waits_and_without_it(depth: int) -> None:
    # Given a device that is busy, and a queue in front of it,
    device = Device()
    device.gate.clear()
    batcher = Batcher(device, batch_size=8, depth=depth)
    queued = [batcher.submit(rows(*range(8))) for _ in range(4)]
    while len(device.batches) < depth:
        pass
    # if two images are submitted that go first,
    first = [batcher.submit_first(rows(n)) for n in (1, 2)]
    device.gate.set()
    for future in (*queued, *first):
        future.result(10)
    # I expect them in the next batch, alone, and their own results.
    assert device.batches[depth] == 2
    assert [numbers(future.result()) for future in first] == [[1], [2]]
    # On an idle device they begin at once,
    assert numbers(batcher.submit_first(rows(7)).result(10)) == [7]
    batcher.close()
    # and none is left behind.
    other = Batcher(Device(), batch_size=2, depth=depth)
    last = [other.submit_first(rows(n)) for n in range(9)]
    other.close()
    assert [numbers(future.result(1)) for future in last] == [[n] for n in range(9)]


def test_parts_are_cut_where_a_batch_ends_and_not_copied() -> None:
    parts = [rows(0, 1, 2), rows(3), rows(4, 5, 6, 7, 8)]
    for most in range(1, 11):
        groups: list[list[Any]] = [list(group) for group in pieces(parts, most)]
        assert {sum(map(len, group)) for group in groups[:-1]} <= {most}
        assert [int(row) for group in groups for part in group for row in part[:, 0, 0, 0]] == list(range(9))
        assert all(any(np.shares_memory(cut, part) for part in parts) for group in groups for cut in group)
