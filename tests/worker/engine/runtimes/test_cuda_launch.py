"""Batches on CUDA, with a device of a few lines of Python: streams, CUDA graphs, and memory that ends.

A graph of the device holds the operators that ran while it was recorded, and runs them again on the same tensors.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from worker.engine.arithmetic import queueing
from worker.engine.runtimes.batcher import Batcher
from worker.engine.runtimes.out_of_memory import free
from worker.engine.runtimes.torch_runtime import CudaLaunch

CUDA = torch.device("cuda")
SIDE = 4


class Graph(TorchDispatchMode):
    """Keeps what runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self._kernels: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self._kernels.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        for func, args, named, made in self._kernels:
            again = func(*args, **named)
            for old, new in zip(pytree.tree_leaves(made), pytree.tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    old.copy_(new)


class Device:
    """Stands in for `torch.cuda`: as there, one graph may be recorded at a time, and no memory given back meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.graphs: list[weakref.ref[Graph]] = []
        self.recording = False
        self.spoiled: set[tuple[int, int]] = set()
        """Pools of which torch's allocator believes that a graph is recorded into them."""
        self.gate: Callable[[], None] = lambda: None
        """Runs while a graph is recorded."""
        self._pools = 0
        self._names = iter(("copies", "computes") * 10)
        device = self

        class Stream:
            def __init__(self, _: torch.device) -> None:
                self.name = next(device._names)

            def wait_stream(self, other: Stream) -> None:
                device.log.append(f"{self.name} wait for {other.name}")

            def synchronize(self) -> None:
                device.log.append(f"{self.name} are waited for")

        class Event:
            def __init__(self, *, blocking: bool) -> None:
                assert blocking, "or waiting takes a core"

            def record(self, stream: Stream) -> None:
                assert stream.name == "computes"

            def synchronize(self) -> None:
                device.log.append("answer")

        zeros, empty = torch.zeros, torch.empty

        def on_cpu(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def made(*args: Any, pin_memory: bool = False, device: Any = None, **named: Any) -> Tensor:
                return make(*args, **named)

            return made

        monkeypatch.setattr(torch, "zeros", on_cpu(zeros))
        monkeypatch.setattr(torch, "empty", on_cpu(empty))
        monkeypatch.setattr(Tensor, "is_pinned", lambda _: False)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda _, pool: self.spoiled.remove(pool))
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda _, pool: self.log.append("released"))
        stands_in: dict[str, Any] = {
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": self._graph,
            "graph": self._recorded,
            "graph_pool_handle": self._pool,
            "stream": lambda stream: nullcontext(),
            "device": lambda _: nullcontext(),
            "current_stream": lambda _: SimpleNamespace(name="the weights"),
            "current_device": lambda: 0,
            "is_available": lambda: True,
            "empty_cache": self._empty_cache,
            "synchronize": self._synchronize,
        }
        for name, one in stands_in.items():
            monkeypatch.setattr(torch.cuda, name, one)

    @property
    def held(self) -> int:
        """Graphs that somebody holds."""
        return sum(graph() is not None for graph in self.graphs)

    def _pool(self) -> tuple[int, int]:
        self._pools += 1
        return 0, self._pools

    def _graph(self) -> Graph:
        graph = Graph()
        self.graphs.append(weakref.ref(graph))
        return graph

    @contextmanager
    def _recorded(self, graph: Graph, *, pool: tuple[int, int], stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "other threads go on"
        assert stream.name == "computes"
        self._only()
        self.recording = True
        self.spoiled.add(pool)
        try:
            self.gate()
            with graph:
                yield
        except torch.OutOfMemoryError:
            self.spoiled.remove(pool)
            raise
        except Exception as error:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from error
        finally:
            self.recording = False
        self.spoiled.remove(pool)
        self.log.append("recorded")

    def _empty_cache(self) -> None:
        self._only()
        self.log.append("emptied")

    def _synchronize(self, _: object = None) -> None:
        raise AssertionError("waits for the whole device, which would end a recording of another model")

    def _only(self) -> None:
        assert not self.recording, "captures_underway.empty() INTERNAL ASSERT FAILED"
        assert not self.spoiled, "captures_underway.empty() INTERNAL ASSERT FAILED"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


class Net:
    """Tells the sum and twice the sum of each image; has room for `room` at a time."""

    def __init__(self) -> None:
        self.room = 1000
        self.batches: list[int] = []

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        total = pixels.long().sum((1, 2, 3))[:, None].float()
        return total.clone(), total * 2


def images(n: int, first: int = 0) -> NDArray[np.uint8]:
    """Images that each have a sum of their own."""
    pixels = np.zeros((n, SIDE, SIDE, 3), np.uint8)
    pixels[:, 0, 0, 0] = (np.arange(n) + first) % 256
    return pixels


def sums(pixels: NDArray[np.uint8]) -> list[float]:
    return [float(image.sum()) for image in pixels]


def launch(net: Callable[[Tensor], tuple[Tensor, Tensor]], size: int = 16) -> CudaLaunch:
    return CudaLaunch(net, CUDA, (size, SIDE, SIDE, 3))


def test_a_size_runs_then_is_recorded_then_replayed(device: Device) -> None:
    # Given batches of two sizes, the third and later ones of each,
    net = Net()
    start = launch(net)
    for n in range(8):
        for rows in (16, 5):
            pixels = images(rows, first=20 * n)
            output = start([pixels])()
            # I expect the answers of their own images,
            assert output.logits[:, 0].tolist() == sums(pixels)
            assert output.features[:, 0].tolist() == [2 * one for one in sums(pixels)]
    # and that Python ran the model twice for each size, as it is and to record it.
    assert net.batches == [16, 8, 16, 8]
    assert device.log.count("recorded") == 2


def test_two_batches_under_way_have_answers_of_their_own(device: Device) -> None:
    start = launch(Net())
    for _ in range(3):
        first, second = images(16, first=1), images(16, first=100)
        one, other = start([first]), start([second])
        assert one().logits[:, 0].tolist() == sums(first)
        assert other().logits[:, 0].tolist() == sums(second)


def test_streams_wait_for_each_other_and_never_for_the_whole_device(device: Device) -> None:
    start = launch(Net())
    start([images(16)])()
    assert device.log == ["computes wait for the weights", "computes wait for copies", "answer"]


def test_what_was_copied_is_kept_until_the_answer(device: Device) -> None:
    """Its memory belongs to the stream of copies, which may write it anew as soon as nobody holds it."""
    seen: list[weakref.ref[Tensor]] = []

    def net(pixels: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(weakref.ref(pixels))
        return pixels.float().flatten(1), pixels.float().flatten(1)

    wait = launch(net)([images(16)])
    assert seen[0]() is not None
    wait()
    assert seen[0]() is None


def test_memory_that_ends_halves_recorded_batches_which_grow_again(device: Device) -> None:
    # Given a device that recorded its largest batch and then has room for three images,
    net, now = Net(), [0.0]
    start = launch(net)
    batcher = Batcher(start, batch_size=16, depth=2, free=start.free, clock=lambda: now[0])

    def run(n: int) -> list[float]:
        futures = [batcher.submit(images(8, first=8 * at)) for at in range(n)]
        return [float(value) for future in futures for value in future.result(10).logits[:, 0]]

    wanted = [one for at in range(6) for one in sums(images(8, first=8 * at))]
    assert run(6) == wanted
    assert device.held > 0
    start._recorded.clear()  # as if another process had taken the memory: replays need none
    net.room = 3
    # I expect the right answers in smaller batches, and memory given back; and once there is room, larger ones.
    assert run(6) == wanted
    assert batcher.batch_size == 2
    assert "emptied" in device.log
    recorded = device.log.count("recorded")
    assert run(6) == wanted
    assert device.log.count("recorded") >= recorded
    net.room = 1000
    for _ in range(4):
        now[0] += 4000
        assert run(6) == wanted
    assert batcher.batch_size == 16
    batcher.close()


def test_without_memory_for_a_graph_the_model_runs_as_it_is(device: Device) -> None:
    net = Net()
    start = launch(net)
    start([images(16)])()

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    device.gate = full
    for n in range(3):
        assert start([images(16, first=n)])().logits[:, 0].tolist() == sums(images(16, first=n))
    assert device.log.count("recorded") == 0
    # Once memory was given back, it is tried again.
    device.gate = lambda: None
    start.free()
    start([images(16)])()
    assert device.log.count("recorded") == 1


def test_a_model_that_cannot_be_recorded_is_not_tried_again_and_spoils_nothing(device: Device) -> None:
    tries = [0]
    net = Net()

    def look() -> None:
        tries[0] += 1
        raise RuntimeError("operation not permitted when stream is capturing")

    device.gate = look
    start = launch(net)
    for n in range(3):
        for rows in (16, 8):
            pixels = images(rows, first=30 * n)
            assert start([pixels])().logits[:, 0].tolist() == sums(pixels)
    assert tries == [1]
    # Another model of the process is recorded, and memory is given back.
    device.gate = lambda: None
    other = launch(Net())
    other([images(16)])()
    other([images(16)])()
    assert device.log.count("recorded") == 1
    free()
    assert "emptied" in device.log


def test_graphs_end_with_their_model(device: Device) -> None:
    start = launch(Net())
    for _ in range(2):
        start([images(16)])()
    assert device.held == 1
    del start
    gc.collect()
    assert device.held == 0


def test_while_one_model_is_recorded_no_other_is_and_no_memory_is_given_back(device: Device) -> None:
    # Given two models of a process, one of which is being recorded,
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(10)

    one, other = launch(Net()), launch(Net())
    for start in (one, other):
        start([images(16)])()
    device.gate = slow
    failed: list[BaseException] = []

    def in_thread(work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    threads = [in_thread(lambda: one([images(16)])())]
    assert begun.wait(10)
    device.gate = lambda: None
    # if the other one is recorded too, gives memory back, or a training takes a step of fast arithmetic,
    threads += [in_thread(lambda: other([images(16)])()), in_thread(free), in_thread(other.free)]
    for thread in threads[1:]:
        thread.join(0.05)
    assert device.log.count("recorded") == 0
    go_on.set()
    for thread in threads:
        thread.join(10)
    # I expect each to wait for the first.
    assert not failed
    assert device.log.count("recorded") == 2
    assert device.log.index("recorded") < device.log.index("emptied")


def _flags() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark


@pytest.fixture
def settled() -> Iterator[None]:
    deterministic, benchmark = _flags()
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark


def test_fast_arithmetic_is_of_one_thread_and_ends_with_its_step(settled: None) -> None:
    # Given a training whose step may choose any sum,
    inside, go_on = threading.Event(), threading.Event()
    seen: list[tuple[bool, bool]] = []

    def step() -> None:
        with queueing(CUDA, loose=True):
            seen.append(_flags())
            inside.set()
            assert go_on.wait(10)

    def batch() -> None:
        with queueing(CUDA):
            seen.append(_flags())

    training = threading.Thread(target=step)
    training.start()
    assert inside.wait(10)
    labelling = threading.Thread(target=batch)
    labelling.start()
    labelling.join(0.05)
    assert seen == [(False, True)]
    go_on.set()
    for thread in (training, labelling):
        thread.join(10)
    # I expect a batch of another thread to be added in the order that is always the same.
    assert seen == [(False, True), (True, False)]


def test_on_a_cpu_nothing_is_held_and_nothing_set(settled: None) -> None:
    before = _flags()
    holder: AbstractContextManager[None] = queueing(torch.device("cpu"), loose=True)
    with holder:
        assert _flags() == before
        others = threading.Thread(target=lambda: queueing(CUDA).__enter__())
        others.start()
        others.join(10)
        assert not others.is_alive()
