"""How many compute at a time, and with how many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from worker.execution.device_slots import DeviceSlots

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def never() -> None:
    raise AssertionError("there was a lane")


def enough() -> None:
    raise TimeoutError


@pytest.mark.parametrize(("device", "threads", "lanes"), [(CPU, 1, 1), (CPU, 3, 3), (CUDA, 3, 1)])
def test_as_many_compute_as_there_are_lanes(device: torch.device, threads: int, lanes: int) -> None:
    # Given as many threads inside as there are lanes,
    made, inside, done = DeviceSlots(device, threads), threading.Barrier(lanes + 1), threading.Event()

    def compute() -> None:
        with made.turn(never):
            inside.wait(60)
            done.wait(60)

    with ThreadPoolExecutor(lanes) as pool:
        computing = [pool.submit(compute) for _ in range(lanes)]
        inside.wait(60)

        # I expect one more to wait, and to be let in when they are done.
        with pytest.raises(TimeoutError), made.turn(enough):
            pass
        done.set()
        for one in computing:
            one.result(10)
    with made.turn(never):
        pass


def test_those_inside_share_the_cores() -> None:
    # Given a CPU with four threads and one that computes, with all of them,
    made, inside, looked = DeviceSlots(CPU, 4), threading.Barrier(2), threading.Barrier(2)
    with made.turn(never):
        assert torch.get_num_threads() == 4

        # if a second begins, I expect each to have half from its next group on, and the first all of them afterwards.
        def second() -> int:
            with made.turn(never):
                inside.wait(60)
                looked.wait(60)
                return torch.get_num_threads()

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(second)
            inside.wait(60)
            with made.turn(never):
                assert torch.get_num_threads() == 2
            looked.wait(60)
            assert other.result(10) == 2
        with made.turn(never):
            assert torch.get_num_threads() == 4


def test_an_error_inside_gives_the_lane_back() -> None:
    made = DeviceSlots(CPU, 1)
    with pytest.raises(ValueError, match="inside"), made.turn(never), made.turn(never):
        raise ValueError("inside")
    with ThreadPoolExecutor(1) as pool:

        def compute() -> None:
            with made.turn(never):
                pass

        pool.submit(compute).result(10)
