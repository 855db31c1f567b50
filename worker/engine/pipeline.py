"""The engine turns encoded images into one result each, and keeps the device busy.

It knows neither where the bytes come from nor where the results go. Each of its lanes is a thread that takes a chunk of
a shard, decodes it, submits it to the runtime and turns the output into results.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contract.errors import DecodeFailed, ImageError
from contract.instruments import STAGE_SECONDS
from contract.models.registry import Preprocess
from worker.engine.budget import Reservation
from worker.engine.busy import busy_on
from worker.engine.images.decode import Decoded, Frame
from worker.engine.images.decoders import open_each
from worker.engine.images.regions import Allocate, packed
from worker.engine.motion import Motion, behind, current, moved, working_for
from worker.engine.types import FedRuntime, Output, PromptRuntime, Runtime

Encoded: TypeAlias = bytes | tuple[Frame, ...] | ImageError
"""The bytes of a file, the files that are the frames of a sequence, or the error that explains why there are none."""

# A GPU runs 256 at a time, but if each lane decoded 256 the device would start late and finish late; the runtime
# coalesces smaller chunks.
_CHUNK = 32
_SPARE = 1
"""Lanes beyond those that a runtime computes on: one that waits for its decoder leaves its core to another. Labelling
tars on two cores went from 215 to 229 images/s, beside an ideal loop of 242."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The `top_k` class indices, most probable first, with their softmax probabilities.

    `width` and `height` are pixels, after EXIF rotation; `sha256` is the digest of the file, or of the concatenated
    frames; `features`, float32 [d], is None unless requested.
    """

    indices: tuple[int, ...]
    scores: tuple[float, ...]
    width: int
    height: int
    sha256: str
    features: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an image has no label; `sha256` is the digest of the file, or None without a file."""

    error: ImageError
    sha256: str | None


Result: TypeAlias = Labelled | Failed


class Engine:
    """Serves shards of images in submission order. Use one per process; it is thread-safe.

    `lanes` 0 means one more than the runtime computes on at once. With `frames`, each item is a sequence, of which at
    most that many evenly spaced frames are used. The caller closes the runtime.
    """

    def __init__(
        self, runtime: Runtime, *, preprocess: Preprocess, max_pixels: int, lanes: int = 0, frames: int = 0
    ) -> None:
        self._runtime = runtime
        self._submit_first = runtime.submit_first if isinstance(runtime, PromptRuntime) else runtime.submit
        feeding = runtime if isinstance(runtime, FedRuntime) else None
        self._allocate: Allocate = np.empty if feeding is None else feeding.allocate
        self._regions = feeding is not None and feeding.resizes and not frames
        self._preprocess = preprocess
        self._max_pixels = max_pixels
        self._frames = frames
        self._width = lanes or runtime.lanes
        # Limits the decoded batches that wait for the device: pixels are what fills memory.
        self._in_flight = threading.BoundedSemaphore(2 * self._width)
        self._busy = busy_on(runtime.device)
        self._motion, self._device = Motion(), Motion()  # of the lanes together, and of the batches on the device
        self._work = _Work()
        self._open: set[Future[list[Result]]] = set()
        self._prompt = 0  # open shards that somebody waits for
        self._lock = threading.Lock()
        self._closed = False
        self._lanes = [
            threading.Thread(target=self._lane, name=f"imagemill-lane-{n}", daemon=True)
            for n in range(lanes or runtime.lanes + _SPARE)
        ]
        for lane in self._lanes:
            lane.start()

    def submit(
        self,
        items: Sequence[Encoded],
        *,
        top_k: int = 5,
        features: bool = False,
        memory: Sequence[Reservation] = (),
        first: bool = False,
    ) -> Future[list[Result]]:
        """Return a future of one result per item, in order; an unreadable image becomes a Failed and affects no other.

        With `first` somebody waits for the answer: it goes before all that has not begun. It is spread over the lanes
        that no other such shard keeps busy: small batches take a device longer per image.
        `memory` is what is reserved for each item; it is released once the item is decoded.
        The future fails only if the device does, for instance with DeviceOutOfMemory. Canceling it skips the chunks
        that no lane has taken yet. Raises RuntimeError after `close`.
        """
        shard = _Shard(items, top_k, features, memory, first)
        with self._lock:
            if self._closed:
                raise RuntimeError("The engine is closed; create another one.")
            self._open.add(shard.future)
            idle = max(1, self._width - self._prompt)
            self._prompt += first
        shard.future.add_done_callback(partial(self._forget, first))
        if not items:
            shard.put(0, [])
        chunk = min(self._runtime.batch_size, _CHUNK)
        if first:
            chunk = max(1, min(chunk, -(-len(items) // idle)))
        later = self._work.soon if first else self._work.later
        for start in range(0, len(items), chunk):
            for motion in shard.motions:
                motion.queue(self._motion.at)  # chunks are taken in turn: what the lanes do meanwhile lies in front
            later(partial(self._take, shard, start, chunk))
        return shard.future

    def close(self) -> None:
        """Finish all submitted shards, then end the lanes."""
        with self._lock:
            self._closed = True
            waiting = tuple(self._open)
        wait(waiting)
        for _ in self._lanes:
            self._work.end()
        for lane in self._lanes:
            lane.join()

    def _forget(self, first: bool, future: Future[list[Result]]) -> None:
        with self._lock:
            self._open.discard(future)
            self._prompt -= first

    def _lane(self) -> None:
        while (step := self._work.next()) is not None:
            step()

    def _take(self, shard: _Shard, start: int, count: int) -> None:
        """Decode a chunk and submit it to the runtime."""
        for motion in shard.motions:
            motion.leave(self._motion.at)
            motion.move()
        with working_for(self._motion, *shard.motions):
            self._run(shard, start, count)

    def _run(self, shard: _Shard, start: int, count: int) -> None:
        places = range(start, min(start + count, len(shard.items)))
        if shard.future.done():
            for place in places:
                shard.forget(place)
            return
        try:
            with STAGE_SECONDS.seconds("decode"):
                entries = self._open_files(shard, places)
            decoded = [entry[0] for entry in entries if not isinstance(entry, Failed)]
            if not decoded:
                shard.put(start, _results(entries, None, shard))
                return
            batch = self._batch(decoded)
            if not shard.first:  # whoever submits `first` bounds what it submits
                with behind(self._device.at):
                    self._in_flight.acquire()
            moved()
            began = time.perf_counter()
            self._busy.begin()
            try:
                output = self._submit_first(*batch) if shard.first else self._runtime.submit(*batch)
            except Exception:
                self._busy.end()
                self._let_through(shard)
                raise
            output.add_done_callback(partial(self._done, shard, began))
        except Exception as error:
            shard.fail(error)
            for place in places:  # those that were not opened either
                shard.forget(place)
            return
        if output.done():
            self._give_back(shard, start, entries, output)
        else:
            # The device thread only queues this step; a lane makes the results before it decodes more.
            output.add_done_callback(partial(self._give_back_later, shard, start, entries))

    def _batch(self, decoded: Sequence[Decoded]) -> tuple[Any, ...]:
        """Return the arguments of `submit`, written once, in memory of the runtime."""
        pixels = [one.pixels for one in decoded]
        if self._frames:
            return padded(pixels, self._allocate)
        if self._regions:
            return (packed([one.region or one.pixels for one in decoded], self._allocate),)
        return (np.stack(pixels, out=self._allocate((len(pixels), *pixels[0].shape), np.uint8)),)

    def _done(self, shard: _Shard, began: float, _: Future[Output]) -> None:
        """Let the next batch through, and count the time of this one on its device, where it may have waited."""
        for motion in (self._device, *shard.motions):
            motion.move()
        self._busy.end()
        self._let_through(shard)
        STAGE_SECONDS.add(time.perf_counter() - began, "forward")

    def _let_through(self, shard: _Shard) -> None:
        if not shard.first:
            self._in_flight.release()

    def _give_back_later(self, shard: _Shard, start: int, entries: list[_Entry], output: Future[Output]) -> None:
        self._work.now(partial(self._give_back, shard, start, entries, output))

    def _give_back(self, shard: _Shard, start: int, entries: list[_Entry], output: Future[Output]) -> None:
        try:
            shard.put(start, _results(entries, output.result(), shard))
        except Exception as error:
            shard.fail(error)

    def _open_files(self, shard: _Shard, places: Sequence[int]) -> list[_Entry]:
        """Return what became of the items at some places, each once it is decoded or has failed."""
        entries: dict[int, _Entry] = {}
        files: list[bytes | tuple[Frame, ...]] = []
        owners: list[int] = []
        for place in places:
            item = shard.items[place]
            if isinstance(item, ImageError):
                entries[place] = Failed(item, None)
            else:
                files.append(item)
                owners.append(place)
            shard.items[place] = b""  # its only owner is `files` now
        del item
        how = self._preprocess
        opened = open_each(files, how, max_pixels=self._max_pixels, frames=self._frames, regions=self._regions)
        for n, found in opened:
            entries[owners[n]] = _entry(found, sha256_of(files[n]))
            files[n] = b""
            shard.forget(owners[n])
            moved()
        return [entries[place] for place in places]


def _entry(found: Decoded | Exception, sha256: str) -> _Entry:
    if isinstance(found, Decoded):
        return found, sha256
    if isinstance(found, MemoryError):
        raise found  # no fault of the image
    if isinstance(found, ImageError):
        return Failed(_bare(found), sha256)
    return Failed(DecodeFailed(f"The image cannot be decoded ({found!r}); save it anew."), sha256)


def padded(
    sequences: Sequence[NDArray[np.uint8]], allocate: Allocate = np.empty
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Stack sequences [t_i, h, w, 3] into [n, t, h, w, 3], zero-padded at the end; return it and the lengths [n].

    `allocate` makes the array of the pixels.
    """
    lengths = np.array([len(frames) for frames in sequences], np.int64)
    pixels = allocate((len(sequences), int(lengths.max()), *sequences[0].shape[1:]), np.uint8)
    for target, frames in zip(pixels, sequences, strict=True):
        target[: len(frames)] = frames
        target[len(frames) :] = 0
    return pixels, lengths


def sha256_of(item: bytes | tuple[Frame, ...]) -> str:
    """Return the SHA-256, in hex, of a file or of the concatenated frames."""
    digest = hashlib.sha256()
    for data in (frame.data for frame in item) if isinstance(item, tuple) else (item,):
        digest.update(data)
    return digest.hexdigest()


def _bare(error: ImageError) -> ImageError:
    """Return the error without its traceback, which would keep the bytes of every bad image alive."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


_Entry: TypeAlias = tuple[Decoded, str] | Failed


class _Shard:
    """Collects the results of one submission, chunk by chunk."""

    def __init__(
        self, items: Sequence[Encoded], top_k: int, features: bool, memory: Sequence[Reservation], first: bool
    ) -> None:
        self.items, self.top_k, self.features, self.first = list(items), top_k, features, first
        self._memory = memory
        self.motions = current()
        """What this is done for; it waits behind other chunks until a lane takes its own."""
        self.future: Future[list[Result]] = Future()
        self._results: list[Result | None] = [None] * len(items)
        self._missing = len(items)
        self._lock = threading.Lock()

    def forget(self, place: int) -> None:
        """Drop the bytes of an item, and release the memory reserved for them."""
        self.items[place] = b""
        if self._memory:
            self._memory[place].release()

    def put(self, start: int, results: Sequence[Result]) -> None:
        with self._lock:
            self._results[start : start + len(results)] = results
            self._missing -= len(results)
            complete = self._missing == 0
        if complete:
            self._settle(lambda: self.future.set_result([r for r in self._results if r is not None]))

    def fail(self, error: Exception) -> None:
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        with suppress(InvalidStateError):  # canceled, or another chunk failed first
            settle()


class _Work:
    """A queue of steps by priority: making results, decoding chunks somebody waits for, other chunks; each is FIFO."""

    def __init__(self) -> None:
        self._steps: queue.PriorityQueue[tuple[int, int, Callable[[], None] | None]] = queue.PriorityQueue()
        self._count = itertools.count()

    def now(self, step: Callable[[], None]) -> None:
        self._steps.put((0, next(self._count), step))

    def soon(self, step: Callable[[], None]) -> None:
        self._steps.put((1, next(self._count), step))

    def later(self, step: Callable[[], None]) -> None:
        self._steps.put((2, next(self._count), step))

    def end(self) -> None:
        """End one lane after all steps queued so far."""
        self._steps.put((3, next(self._count), None))

    def next(self) -> Callable[[], None] | None:
        return self._steps.get()[2]


def _results(entries: Sequence[_Entry], output: Output | None, shard: _Shard) -> list[Result]:
    """Return one result per entry; the rows of `output` belong to the decoded entries, in order."""
    rows: Iterator[tuple[list[int], list[float], NDArray[np.float32]]] = iter(())
    if output is not None:
        if not np.isfinite(output.logits).all():
            raise ArithmeticError("The output of the model is not finite.")
        indices, scores = top_k(output.logits, shard.top_k)
        rows = zip(indices.tolist(), scores.tolist(), output.features, strict=True)
    results: list[Result] = []
    for entry in entries:
        if isinstance(entry, Failed):
            results.append(entry)
            continue
        decoded, sha256 = entry
        index, score, features = next(rows)
        results.append(
            Labelled(
                tuple(index),
                tuple(score),
                decoded.width,
                decoded.height,
                sha256,
                features if shard.features else None,
            )
        )
    return results


def top_k(logits: NDArray[np.float32], k: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the k most probable classes of each row of `logits` [n, classes]: indices [n, k], probabilities [n, k].

    Equal scores are ordered by index, because bf16 logits tie often; NaN comes last. Takes 10 µs a row of 1,000, and 90
    of 21,000; sorting whole rows took 49 and 1,600.
    """
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    sums = exponentials.sum(axis=1, keepdims=True)
    k = min(k, logits.shape[1])
    indices = np.empty((len(logits), k), np.intp)
    costs = -logits
    most = np.partition(costs, k - 1, axis=1)[:, k - 1, None]
    for row, values, beyond in zip(indices, costs, costs > most, strict=True):
        places = np.flatnonzero(~beyond)  # more than k if several have the least of these scores, or are NaN
        row[:] = places[np.argsort(values[places], kind="stable")[:k]]
    return indices, np.take_along_axis(exponentials, indices, axis=1) / sums
