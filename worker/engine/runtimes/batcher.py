"""One device thread that coalesces submissions, keeps two batches in flight and halves batches when memory runs out.

It knows neither torch nor images; the device is a function that starts a batch and returns a function that waits for
its output. A batch comes in parts, of which it knows that they have rows: images or sequences. Memory that another
process held may come back, so batches grow again after a while.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from contract.errors import DeviceOutOfMemory
from worker.engine.types import Output


class Rows(Protocol):
    """Images or sequences in an order: n of them, and slices of them."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: slice, /) -> Any: ...


Part = TypeVar("Part", bound=Rows)

Wait = Callable[[], Output]
Launch = Callable[[Sequence[Part]], Wait]
"""Starts a batch, given as parts of n_i rows; the returned function waits for it and returns its Σ n_i rows.

Both may raise DeviceOutOfMemory. At most `depth` batches are started and not yet waited for.
"""


_GROW_SECONDS, _GROW_SECONDS_AT_MOST = 60.0, 3600.0
"""A halved batch is doubled after this many seconds; each halving doubles them, up to the second number."""


SMALL = 8
"""The largest of the small batches that `PromptRuntime.prepare` makes ready."""


def buckets(batch_size: int) -> tuple[int, ...]:
    """Return the few sizes that batches are padded to, so that kernels are not built for every remainder.

    They are `batch_size` and its halves down to 1, which are also the sizes that are left when memory runs out.
    """
    return tuple(sorted({batch_size >> shift for shift in range(batch_size.bit_length())}))


_Item: TypeAlias = tuple[Part, Future[Output]]


@dataclass(frozen=True)
class _Flight(Generic[Part]):
    parts: list[Part]
    futures: list[Future[Output]]
    wait: Wait


class Batcher(Generic[Part]):
    """Serves submissions in order. With `depth` 2 a batch starts before the previous one is done.

    `free` gives unused memory back to the device; it is called before a batch that did not fit is tried again. `row` is
    what a person calls a row.
    """

    def __init__(
        self,
        launch: Launch[Part],
        *,
        batch_size: int,
        depth: int,
        free: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        row: str = "image",
    ) -> None:
        self.batch_size = batch_size
        self._largest = batch_size
        self._patience = _GROW_SECONDS / 2  # doubled each time that a batch does not fit
        self._grow_at = 0.0
        self._free, self._clock = free, clock
        self._launch, self._row = launch, row
        self._depth = depth
        self._queue: queue.SimpleQueue[_Item[Part] | Literal["first"] | None] = queue.SimpleQueue()
        self._first: deque[_Item[Part]] = deque()
        self._held: _Item[Part] | None = None
        self._flights: deque[_Flight[Part]] = deque()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="imagemill-device", daemon=True)
        self._thread.start()

    def submit(self, pixels: Part) -> Future[Output]:
        """Return a future of the output for these rows."""
        future: Future[Output] = Future()
        self._queue.put((pixels, future))
        return future

    def submit_first(self, pixels: Part) -> Future[Output]:
        """Return a future of the output for these rows, which go before all that wait, in a batch without them."""
        future: Future[Output] = Future()
        self._first.append((pixels, future))
        self._queue.put("first")  # wakes the thread
        return future

    def close(self) -> None:
        """Finish all submissions, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._open or self._flights:
            group = self._take()
            if group:
                self._start(group)
            if self._flights and (not group or len(self._flights) >= self._depth):
                self._finish(self._flights.popleft())

    def _take(self) -> list[_Item[Part]]:
        """Take up to `batch_size` waiting rows; block only while the device is idle."""
        group = self._take_first()
        if group:
            return group
        rows = 0
        while self._open:
            item: _Item[Part] | Literal["first"] | None
            item, self._held = self._held, None
            if item is None:
                try:
                    item = self._queue.get(block=not group and not self._flights)
                except queue.Empty:
                    break
            if item is None:
                self._open = False
                break
            if isinstance(item, str):
                if group:
                    break
                if group := self._take_first():
                    return group
                continue  # taken before
            if group and rows + len(item[0]) > self.batch_size:
                self._held = item
                break
            if item[1].set_running_or_notify_cancel():
                group.append(item)
                rows += len(item[0])
        return group

    def _take_first(self) -> list[_Item[Part]]:
        """Take up to `batch_size` rows of those that go before all others."""
        group: list[_Item[Part]] = []
        rows = 0
        while self._first and (not group or rows + len(self._first[0][0]) <= self.batch_size):
            item = self._first.popleft()
            if item[1].set_running_or_notify_cancel():
                group.append(item)
                rows += len(item[0])
        return group

    def _start(self, group: list[_Item[Part]]) -> None:
        parts, futures = [pixels for pixels, _ in group], [future for _, future in group]
        self._grow()
        full = False
        try:
            fits = sum(map(len, parts)) <= self.batch_size
            wait = self._launch(parts) if fits else self._piecewise(parts)
        except DeviceOutOfMemory:
            full = True
        except Exception as error:
            wait = _raises(error)
        if full:  # outside of `except`, where the error would keep the tensors of the failed batch alive
            wait = self._smaller(parts)
        self._flights.append(_Flight(parts, futures, wait))

    def _finish(self, flight: _Flight[Part]) -> None:
        full = False
        try:
            output = flight.wait()
        except DeviceOutOfMemory:
            full = True
        except Exception as error:
            _fail(flight, error)
            return
        if full:
            try:
                output = self._smaller(flight.parts)()
            except Exception as error:
                _fail(flight, error)
                return
        start = 0
        for part, future in zip(flight.parts, flight.futures, strict=True):
            end = start + len(part)
            future.set_result(Output(output.logits[start:end], output.features[start:end]))
            start = end

    def _smaller(self, parts: list[Part]) -> Wait:
        """Free memory and run `parts` again, in half the batch size until they fit; keep that size for a while."""
        while True:
            self._drain()
            try:
                self._free()  # where an error of the device shows that a batch before left
                return self._piecewise(parts)
            except DeviceOutOfMemory:
                if self.batch_size == 1:
                    return _raises(
                        DeviceOutOfMemory(
                            f"The device has no memory for a single {self._row}; stop other processes that use it, or "
                            "use a smaller model."
                        )
                    )
            except Exception as error:
                return _raises(error)
            self.batch_size //= 2
            self._patience = min(2 * self._patience, _GROW_SECONDS_AT_MOST)
            self._grow_at = self._clock() + self._patience

    def _grow(self) -> None:
        """Double a halved batch size if it has fitted for a while."""
        if self.batch_size < self._largest and self._clock() >= self._grow_at:
            self.batch_size = min(2 * self.batch_size, self._largest)
            self._grow_at = self._clock() + self._patience

    def _drain(self) -> None:
        """Finish the batches in flight, which hold scarce memory and buffers."""
        while self._flights:
            self._finish(self._flights.popleft())

    def _piecewise(self, parts: list[Part]) -> Wait:
        """Run `parts` in batches of `batch_size`, one at a time, with nothing else in flight."""
        self._drain()
        whole = joined([self._launch(some)() for some in pieces(parts, self.batch_size)])
        return lambda: whole


def pieces(parts: Sequence[Part], most: int) -> Iterator[list[Part]]:
    """Yield the images of `parts` in groups of at most `most`, as slices, which copy nothing."""
    group: list[Part] = []
    room = most
    for part in parts:
        at = 0
        while at < len(part):
            group.append(part[at : at + room])
            at += len(group[-1])
            room -= len(group[-1])
            if not room:
                yield group
                group, room = [], most
    if group:
        yield group


def joined(outputs: Sequence[Output]) -> Output:
    """Return the rows of some outputs, of one at least, as one output."""
    if len(outputs) == 1:
        return outputs[0]
    return Output(
        np.concatenate([output.logits for output in outputs]),
        np.concatenate([output.features for output in outputs]),
    )


def _fail(flight: _Flight[Any], error: Exception) -> None:
    for future in flight.futures:
        future.set_exception(error)


def _raises(error: Exception) -> Wait:
    def wait() -> Output:
        raise error

    return wait
