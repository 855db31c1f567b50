"""The watchdog by a clock that only the test turns: who waits for others is left alone, what is stuck is found.

Both sides together: whatever excuses a shard that waits must not excuse one that hangs beside it.
"""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.data.children.process import Process, start
from contract.data.items import Item
from contract.models.registry import Preprocess
from contract.settings import Settings
from tests.waiting import wait_until
from worker.engine import budget as budgets
from worker.engine import motion
from worker.engine.images import decoders
from worker.engine.images.decode import Decoded
from worker.engine.images.decoder import Decoder, Gone
from worker.engine.pipeline import Engine, Result
from worker.engine.types import Output, Precision
from worker.execution import leases
from worker.execution.exclusive import Turn
from worker.execution.leases import Lease
from worker.process import leaving
from worker.process.leaving import Leaving
from worker.sources.fetch import Fetcher

STALL = 60.0
STEP = 45.0
"""Two steps without a movement are a standstill, one is not."""
HOW = Preprocess(size=8, crop=1.0, mean=0.0, std=1.0)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        for module in (budgets, motion, leases, leaving):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


class Images:
    """Decodes each image when the test says so: `step` lets one of a name through, and waits until it is."""

    def __init__(self) -> None:
        self._gates: dict[str, threading.Semaphore] = {}
        self._opened: dict[str, int] = {}
        self._changed = threading.Condition()
        self._free = False

    def open(self, item: bytes, *_: object, **__: object) -> Decoded:
        name = item.decode()
        with self._changed:
            gate = self._gates.setdefault(name, threading.Semaphore(0))
        if not self._free:
            gate.acquire()
        with self._changed:
            self._opened[name] = self._opened.get(name, 0) + 1
        return Decoded(np.zeros((8, 8, 3), np.uint8), 8, 8)

    def step(self, name: str, count: int = 1) -> None:
        with self._changed:
            gate = self._gates.setdefault(name, threading.Semaphore(0))
            wanted = self._opened.get(name, 0) + count
        gate.release(count)
        wait_until(lambda: self._opened.get(name, 0) >= wanted, 20, f"an image of {name} to be decoded")

    def release(self) -> None:
        with self._changed:
            self._free = True
            for gate in self._gates.values():
                gate.release(1000)


class FakeRuntime:
    """Answers at once; not at all while `stuck`."""

    name, device = "fake", "none"
    precision: Precision = "fp32"
    batch_size = 4

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.stuck = False
        self.unanswered: list[tuple[Future[Output], int]] = []

    def submit(self, pixels: NDArray[np.uint8], lengths: NDArray[np.int64] | None = None) -> Future[Output]:
        future: Future[Output] = Future()
        self.unanswered.append((future, len(pixels)))
        if not self.stuck:
            self.answer()
        return future

    def answer(self) -> None:
        while self.unanswered:
            future, count = self.unanswered.pop()
            future.set_result(Output(np.zeros((count, 5), np.float32), np.zeros((count, 1), np.float32)))

    def close(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[Images]:
    images = Images()
    monkeypatch.setattr(decoders, "open_item", images.open)
    yield images
    images.release()


@pytest.fixture
def engine_of(images: Images) -> Iterator[Callable[..., Engine]]:
    engines: list[tuple[Engine, FakeRuntime]] = []

    def make(lanes: int, runtime: FakeRuntime | None = None) -> Engine:
        runtime = runtime or FakeRuntime(lanes)
        engines.append((Engine(runtime, preprocess=HOW, max_pixels=10**6, lanes=lanes), runtime))
        return engines[-1][0]

    yield make
    images.release()
    for engine, runtime in engines:
        runtime.stuck = False
        runtime.answer()
        engine.close()


class Shards:
    """The shards that a process holds, and what its watchdog says of them."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        renewer = SimpleNamespace(held=lambda: self.leases)
        settings = SimpleNamespace(stall_seconds=STALL)
        self._leaving = Leaving(cast("Any", SimpleNamespace(settings=settings, renewer_made=lambda: renewer)))

    def begin(self, job: str) -> Lease:
        lease = Lease(job, 0, job)
        lease.begin(Turn())
        self.leases.append(lease)
        return lease

    def submit(self, lease: Lease, engine: Engine, name: str, count: int) -> Future[list[Result]]:
        with motion.working_for(lease.motion):
            return engine.submit([name.encode()] * count)

    def stuck(self) -> set[str]:
        """Return the jobs whose shards the watchdog would end this process for."""
        found, held = set(), self.leases
        for lease in held:
            self.leases = [lease]
            found |= {lease.job} if self._leaving.stalled() else set()
        self.leases = held
        return found


@pytest.fixture
def shards() -> Shards:
    return Shards()


def test_a_shard_that_waits_in_the_engines_queue_is_not_stuck(
    clock: Clock, images: Images, engine_of: Callable[..., Engine], shards: Shards
) -> None:
    # Given a shard of large images on the only lane, and another one behind it,
    engine = engine_of(lanes=1)
    large, small = shards.begin("large"), shards.begin("small")
    first = shards.submit(large, engine, "large", 20)
    second = shards.submit(small, engine, "small", 4)
    # if each image takes less than a standstill, and all of them many times as much,
    for _ in range(20):
        clock.now += STEP
        images.step("large")
        wait_until(lambda: large.moved_at() == clock.now, 20, "the movement to be noticed")
        clock.now += STALL - STEP
        # I expect neither to be taken for stuck at any time,
        assert shards.stuck() == set()
    # nor the second one in the moment in which its turn comes.
    first.result(20)
    images.step("small", 4)
    assert len(second.result(20)) == 4


def test_an_image_that_hangs_in_a_lane_is_found_beside_others_that_move(
    clock: Clock, images: Images, engine_of: Callable[..., Engine], shards: Shards
) -> None:
    # Given two lanes, one of which hangs in an image while the other goes on,
    engine = engine_of(lanes=2)
    hangs, moves = shards.begin("hangs"), shards.begin("moves")
    shards.submit(hangs, engine, "hangs", 1)
    wait_until(lambda: "hangs" in images._gates, 20, "a lane to take it")
    shards.submit(moves, engine, "moves", 40)
    # if time passes, I expect the one that hangs to be found, and only it, though memory comes and goes.
    for _ in range(2):
        clock.now += STEP
        budgets.budget().pixels.ask(10).release()
        images.step("moves")
        wait_until(lambda: moves.moved_at() == clock.now, 20, "the movement to be noticed")
    assert shards.stuck() == {"hangs"}


def test_whoever_waits_behind_lanes_that_all_hang_is_stuck_too(
    clock: Clock, images: Images, engine_of: Callable[..., Engine], shards: Shards
) -> None:
    engine = engine_of(lanes=1)
    hangs, waits = shards.begin("hangs"), shards.begin("waits")
    shards.submit(hangs, engine, "hangs", 1)
    shards.submit(waits, engine, "waits", 1)
    wait_until(lambda: "hangs" in images._gates, 20, "the lane to take it")
    clock.now += 2 * STEP
    assert shards.stuck() == {"hangs", "waits"}


def test_a_device_that_does_not_answer_is_found_while_another_one_does(
    clock: Clock, images: Images, engine_of: Callable[..., Engine], shards: Shards
) -> None:
    # Given a model whose runtime has stopped, and another one that is well and keeps the memory moving,
    runtime = FakeRuntime(1)
    runtime.stuck = True
    dead, well = engine_of(1, runtime), engine_of(1)
    hangs, moves = shards.begin("hangs"), shards.begin("moves")
    shards.submit(hangs, dead, "hangs", 4)
    images.step("hangs", 4)
    wait_until(lambda: bool(runtime.unanswered), 20, "the batch to reach the device")
    shards.submit(moves, well, "moves", 40)
    for _ in range(2):
        clock.now += STEP
        images.step("moves")
        budgets.budget().pixels.ask(10).release()
        wait_until(lambda: moves.moved_at() == clock.now, 20, "the movement to be noticed")
    assert shards.stuck() == {"hangs"}


@pytest.fixture
def memory(clock: Clock) -> Iterator[budgets.Budget]:
    """A process with 100 bytes for files and 200 for pixels."""
    yield budgets.set_total(300)
    budgets.set_total(0)


def test_waiting_for_memory_is_no_standstill_while_it_changes_hands(
    clock: Clock, memory: budgets.Budget, shards: Shards
) -> None:
    # Given a shard that waits for pixels behind five that are decoded one after the other,
    lease = shards.begin("waits")
    holders = [memory.pixels.ask(200) for _ in range(5)]
    wanted = memory.pixels.ask(10)

    def wait() -> None:
        with motion.working_for(lease.motion):
            wanted.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: bool(lease.motion._ahead), 20, "the wait to begin")
    # I expect it to be left alone as long as they come and go,
    for holder in holders[:4]:
        clock.now += STEP
        holder.release()
        clock.now += STALL - STEP
        assert shards.stuck() == set()
    # and to be found if the last one never ends,
    clock.now += 2 * STEP
    assert shards.stuck() == {"waits"}
    # unless what it is in has a deadline of its own.
    with memory.pixels.bounded():
        clock.now += 100 * STALL
        assert shards.stuck() == set()
    clock.now += STALL + 1
    assert shards.stuck() == {"waits"}
    holders[4].release()
    thread.join(20)
    assert wanted.granted.is_set()


def test_a_shard_whose_files_find_no_room_is_judged_by_those_who_hold_it(
    clock: Clock, memory: budgets.Budget, shards: Shards, store: ObjectStore
) -> None:
    # Given a shard whose file waits for room that another one holds, whose images are decoded one by one,
    store.put("in/0", bytes(40))
    lease, said, found = shards.begin("waits"), threading.Semaphore(0), []
    holder = memory.encoded.ask(100)

    def read() -> None:
        with (
            motion.working_for(lease.motion),
            closing(Fetcher(store, 1000, threads=1)) as fetcher,
            closing(fetcher.read_any([Item("0", f"s3://{store.bucket}/in/0", size=40)])) as arrivals,
        ):
            for arrived in arrivals:
                if isinstance(arrived, str):
                    said.release()
                else:
                    found.append(arrived[1])
                    arrived[2].release()

    thread = threading.Thread(target=read)
    thread.start()
    assert said.acquire(timeout=20)
    # I expect it to be left alone while pixels come and go, in whatever moment the watchdog looks,
    for _ in range(3):
        clock.now += STEP
        memory.pixels.ask(10).release()
        assert said.acquire(timeout=20)
        clock.now += STALL - STEP
        assert shards.stuck() == set()
    # and to be found when nothing moves, however often it says that it waits.
    clock.now += 2 * STEP
    assert said.acquire(timeout=20) and said.acquire(timeout=20)
    assert shards.stuck() == {"waits"}
    holder.release()
    thread.join(20)
    assert found == [bytes(40)]


def test_a_fetch_that_gets_bytes_moves(clock: Clock, shards: Shards, settings: Settings, store: ObjectStore) -> None:
    # Given a shard whose file comes slowly: most of a standstill passes before each piece,
    lease = shards.begin("reads")
    store.put("in/large", bytes(3 * 2**20 + 1))
    stuck: list[set[str]] = []

    def hear() -> None:
        clock.now += STEP
        stuck.append(shards.stuck())
        motion.moved()

    # if it is read, I expect it to be left alone.
    item = Item("large", f"s3://{store.bucket}/in/large", size=3 * 2**20 + 1)
    with (
        closing(ObjectStore(settings, heard=hear)) as slow,
        closing(Fetcher(slow, 2**23, threads=1)) as fetcher,
        motion.working_for(lease.motion),
    ):
        ((_, found),) = fetcher.read([item])
    assert found == bytes(3 * 2**20 + 1)
    assert stuck == [set()] * 4


@pytest.fixture
def children() -> Iterator[None]:
    decoders.configure(children=True, seconds=10, max_pixels=10**6)
    yield
    decoders.configure(children=False, seconds=10, max_pixels=10**6)


def gray() -> bytes:
    file = io.BytesIO()
    Image.new("L", (10, 10), 7).save(file, "PNG")
    return file.getvalue()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no processes")
def test_a_decoder_that_stops_is_replaced_by_its_own_deadline(children: None) -> None:
    # Given a decoder that hangs, and is no fault of the image,
    child = decoders._take()
    child._patience = 0.2
    os.kill(child.pid, signal.SIGSTOP)
    decoders._idle.put(child)
    # if an image is given to it, I expect the image to be decoded by another one, and the memory to be free.
    assert decoders.open_item(gray(), HOW, max_pixels=10**6, frames=0).width == 10
    assert not child.alive
    assert budgets.budget().pixels.held == 0 and not budgets.budget().pixels._bounded


def test_a_decoder_that_asks_for_memory_for_ever_meets_the_same_deadline() -> None:
    # Given a decoder that was taken over, and answers each grant with another request,
    forever = """
from contract.data.children.messages import Receiver, send
requests = Receiver(0)
while True:
    requests.receive(1000)
    send(1, {"take": 1})
"""
    child = object.__new__(Decoder)
    Process.__init__(child, start(["-c", forever]))
    child._seconds, child._patience = 10, 2.0
    # if it is asked for an image, I expect it to be given up.
    with pytest.raises(Gone):
        child.ask({}, [b"x"])
    assert not child.alive and budgets.budget().pixels.held == 0
