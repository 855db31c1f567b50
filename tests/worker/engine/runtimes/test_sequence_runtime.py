"""Sequences are batched, padded and halved, and copied to a device from memory that stays as it is meanwhile."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from contract.errors import DeviceOutOfMemory
from tests.waiting import wait_until
from worker.engine import pipeline
from worker.engine.programs.graph import SequenceGraph, load_family
from worker.engine.runtimes import queued, sequence_runtime
from worker.engine.runtimes.batcher import Batcher
from worker.engine.runtimes.queued import Answer, CudaQueue, Forward
from worker.engine.runtimes.sequence_runtime import SequenceLaunch, SequenceRuntime, Sequences
from worker.engine.types import FedRuntime, ModelSpec, Runtime
from worker.zoo.rnn import Rnn

SIZE = 16


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A small model of sequences with weights of chance."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(Rnn(classes=4, channels=1, size=SIZE, hidden=16).state_dict(), path)
    return ModelSpec(
        family="rnn",
        weights=path,
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=SIZE,
        mean=127.5,
        std=127.5,
        classes=4,
        channels=1,
        sequences=True,
        config={"classes": 4, "channels": 1, "size": SIZE, "hidden": 16},
    )


@pytest.fixture(scope="module")
def graph(spec: ModelSpec) -> SequenceGraph:
    made = SequenceGraph(load_family(spec), mean=spec.mean, std=spec.std, channels=spec.channels)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def clips() -> list[NDArray[np.uint8]]:
    """Twenty sequences of 1 to 7 frames."""
    draws = np.random.default_rng(2)
    return [draws.integers(0, 256, (1 + n % 7, SIZE, SIZE, 3), np.uint8) for n in range(20)]


def alone(graph: SequenceGraph, clips: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The logits of each sequence in a batch of its own."""
    with torch.inference_mode():
        each = [graph(torch.from_numpy(clip[None]), torch.tensor([len(clip)]))[0] for clip in clips]
    return torch.cat(each).numpy()


def run(runtime: Runtime, clips: Sequence[NDArray[np.uint8]], each: int) -> NDArray[np.float32]:
    """The logits of sequences that are submitted `each` at a time, as an engine does."""
    allocate = runtime.allocate if isinstance(runtime, FedRuntime) else np.empty
    groups = [clips[at : at + each] for at in range(0, len(clips), each)]
    futures = [runtime.submit(*pipeline.padded(group, allocate)) for group in groups]
    return np.concatenate([future.result(60).logits for future in futures])


class Block:
    """The owner of an array's memory, which the array and its slices keep alive."""

    def __init__(self, memory: NDArray[Any]) -> None:
        self.__array_interface__ = memory.__array_interface__


class Late:
    """A device that reads what it was given as late as it may: when somebody waits for the answer.

    Its memory is handed out again as soon as nobody holds it, as pinned memory is, with other content.
    """

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.under_way = self.most = 0
        self.sizes: list[int] = []
        self.freed = 0

    def allocate(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        memory = np.empty(shape, dtype)
        block = Block(memory)

        def reused() -> None:
            memory[...] = 99
            self.freed += 1

        weakref.finalize(block, reused)
        return np.asarray(block)

    def __call__(self, arrays: Sequence[NDArray[Any]], forward: Forward) -> Answer:
        rows = len(arrays[-1])
        if rows > self.room:
            raise DeviceOutOfMemory("full")
        self.sizes.append(rows)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        held = list(arrays)

        def wait() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            self.under_way -= 1
            with torch.inference_mode():
                logits, features = forward([torch.from_numpy(array) for array in held])
            held.clear()
            return logits.numpy(), features.numpy()

        return wait


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Late], None]:
    """Lets a device stand in for CUDA; everything else runs as there."""

    def stand_in(late: Late) -> None:
        monkeypatch.setattr(sequence_runtime, "queue_on", lambda _: late)
        monkeypatch.setattr(sequence_runtime, "allocate_on", lambda _: late.allocate)
        monkeypatch.setattr(sequence_runtime, "settle", lambda _: None)
        monkeypatch.setattr(sequence_runtime, "precision_on", lambda *_: "fp32")
        monkeypatch.setattr(SequenceGraph, "on", lambda self, *_: self)

    return stand_in


def test_each_sequence_gets_its_own_answer(
    spec: ModelSpec, graph: SequenceGraph, clips: list[NDArray[np.uint8]]
) -> None:
    # Given sequences of many lengths, submitted in groups that share batches,
    with closing(SequenceRuntime(spec, device="cpu", precision="fp32", threads=1, batch_size=8)) as runtime:
        found = run(runtime, clips, each=3)
    # I expect the answer of each to be the one that it gets alone.
    np.testing.assert_allclose(found, alone(graph, clips), rtol=1e-4, atol=1e-5)


def test_on_a_gpu_two_batches_are_under_way_and_memory_is_not_reused_before_it_was_read(
    spec: ModelSpec, graph: SequenceGraph, clips: list[NDArray[np.uint8]], on_gpu: Callable[[Late], None]
) -> None:
    # Given a device that reads pinned memory late,
    late = Late()
    on_gpu(late)
    with closing(SequenceRuntime(spec, device="cuda", precision="fp32", threads=1, batch_size=4)) as runtime:
        assert isinstance(runtime, FedRuntime)
        assert not runtime.resizes
        # if an engine lets go of its arrays as soon as they are submitted,
        found = run(runtime, clips, each=2)
    # I expect what was in them, two batches at a time at most, and memory that came free.
    np.testing.assert_allclose(found, alone(graph, clips), rtol=1e-4, atol=1e-5)
    assert late.most <= 2
    assert late.freed == 10


def test_a_device_that_is_full_gets_smaller_batches(
    spec: ModelSpec, graph: SequenceGraph, clips: list[NDArray[np.uint8]], on_gpu: Callable[[Late], None]
) -> None:
    late = Late(room=3)
    on_gpu(late)
    with closing(SequenceRuntime(spec, device="cuda", precision="fp32", threads=1, batch_size=16)) as runtime:
        found = run(runtime, clips, each=8)
        assert runtime.batch_size == 2
    np.testing.assert_allclose(found, alone(graph, clips), rtol=1e-4, atol=1e-5)
    assert max(late.sizes) <= 3


def test_a_model_that_fails_at_once_leaves_no_thread(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(SequenceGraph, "forward", fail)
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        SequenceRuntime(spec, device="cpu", precision="fp32", threads=1, batch_size=8)
    wait_until(lambda: set(threading.enumerate()) <= before, 30, "its thread to end")


def test_a_device_without_room_for_one_sequence_says_so(graph: SequenceGraph) -> None:
    batcher = Batcher(SequenceLaunch(graph, Late(room=0)), batch_size=4, depth=2, row="sequence")
    clip = Sequences(np.zeros((1, 2, SIZE, SIZE, 3), np.uint8), np.array([2]))
    with pytest.raises(DeviceOutOfMemory, match="single sequence"):
        batcher.submit(clip).result(10)
    batcher.close()


@pytest.mark.parametrize("sizes", [(), (1, 2, 4, 8, 16, 32)])
def test_padding_changes_no_answer(
    graph: SequenceGraph, clips: list[NDArray[np.uint8]], sizes: tuple[int, ...]
) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(tuple(frames.shape[:2]))
        assert len(lengths) == len(frames)
        logits, features = graph(frames, lengths)
        return logits, features

    launch = SequenceLaunch(watched, queued.queue_on(torch.device("cpu")), sizes=sizes)  # type: ignore[arg-type]
    parts = [Sequences(*pipeline.padded(clips[at : at + 4])) for at in (0, 4)] + [
        Sequences(*pipeline.padded(clips[8:9]))
    ]
    output = launch(parts)()
    np.testing.assert_allclose(output.logits, alone(graph, clips[:9]), rtol=1e-4, atol=1e-5)
    assert output.features.shape == (9, 16)
    assert seen == [(16 if sizes else 9, 7)]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Streams and events that write down what they are told, and tensors of a CPU."""
    log: list[str] = []
    current = ["none"]

    class Stream:
        def __init__(self, _: torch.device) -> None:
            self.name = f"stream {sum(line.startswith('made') for line in log)}"
            log.append(f"made {self.name}")

        def wait_stream(self, other: Stream) -> None:
            log.append(f"{self.name} waits for {other.name}")

    class Within:
        def __init__(self, stream: Stream) -> None:
            self._stream = stream

        def __enter__(self) -> None:
            current.append(self._stream.name)

        def __exit__(self, *_: object) -> None:
            current.pop()

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking, "or waiting takes a core"

        def record(self, stream: Stream) -> None:
            log.append(f"event on {stream.name}")

        def synchronize(self) -> None:
            log.append("event waited for")

    def to(self: Tensor, *_: object, non_blocking: bool) -> Tensor:
        log.append(f"copied on {current[-1]}" + ("" if non_blocking else ", blocking"))
        return self.clone()

    empty = torch.empty

    def empty_like_pinned(*args: Any, pin_memory: bool = False, **more: Any) -> Tensor:
        log.append(f"read on {current[-1]} into " + ("pinned memory" if pin_memory else "other memory"))
        return empty(*args, **more)

    def pin(self: Tensor) -> Tensor:
        log.append("pinned")
        return self.clone()

    monkeypatch.setattr(
        torch,
        "cuda",
        SimpleNamespace(
            Stream=Stream,
            Event=Event,
            stream=Within,
            device=lambda _: nullcontext(),
            current_stream=lambda _: SimpleNamespace(name="the stream of the weights"),
        ),
    )
    monkeypatch.setattr(torch, "empty", empty_like_pinned)
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "is_pinned", lambda _: False)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return log


def test_cuda_computes_after_the_copy_and_answers_are_read_after_both(cuda: list[str]) -> None:
    def forward(moved: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        cuda.append("computed")
        return moved[0] * 2, moved[0] + 1

    answer = CudaQueue(torch.device("cpu"))([np.ones((2, 3), np.float32)], forward)
    cuda.append("returned")
    logits, features = answer()

    assert logits.tolist() == [[2, 2, 2]] * 2
    assert features.tolist() == [[2, 2, 2]] * 2
    assert cuda == [
        *("made stream 0", "made stream 1", "stream 1 waits for the stream of the weights"),
        *("pinned", "copied on stream 0", "stream 1 waits for stream 0", "computed"),
        *("read on stream 1 into pinned memory",) * 2,
        *("event on stream 1", "returned", "event waited for"),
    ]


def test_cuda_copies_pinned_arrays_as_they_are_and_keeps_them_until_the_answer(
    cuda: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an array in pinned memory that nobody else holds,
    monkeypatch.setattr(Tensor, "is_pinned", lambda _: True)
    device = Late()
    array = device.allocate((2, 3), np.float32)
    array[...] = 1
    # if a batch of it is started, I expect its memory to be free once the answer is there, and no sooner.
    answer = CudaQueue(torch.device("cpu"))([array], lambda moved: (moved[0], moved[0]))
    del array
    assert "pinned" not in cuda
    assert device.freed == 0
    assert answer()[0].tolist() == [[1, 1, 1]] * 2
    assert device.freed == 1


def test_cuda_writes_no_copy_anew_before_the_answer(cuda: list[str]) -> None:
    copies: list[weakref.ref[Tensor]] = []

    def forward(moved: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        copies.append(weakref.ref(moved[0]))
        return moved[0] * 2, moved[0] + 1

    answer = CudaQueue(torch.device("cpu"))([np.ones((2, 3), np.float32)], forward)
    assert copies[0]() is not None, "the kernels that read it may not have begun"
    answer()
    assert copies[0]() is None
