"""One device thread that coalesces submissions, keeps two batches in flight and halves batches when memory runs out.

It knows neither torch nor images; the device is a function that starts a batch and returns a function that waits for
its output.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import DeviceOutOfMemory
from worker.engine.types import Output

Pixels = NDArray[np.uint8]
Wait = Callable[[], Output]
Launch = Callable[[Sequence[Pixels]], Wait]
"""Starts a batch, given as parts [n_i, h, w, 3]; the returned function waits for it and returns its Σ n_i rows.

Both may raise DeviceOutOfMemory. At most `depth` batches are started and not yet waited for.
"""


def buckets(batch_size: int) -> tuple[int, ...]:
    """Return the few sizes that batches are padded to, so that kernels are not built for every remainder."""
    return tuple(sorted({max(1, batch_size >> shift) for shift in range(4)}))


@dataclass(frozen=True)
class _Flight:
    parts: list[Pixels]
    futures: list[Future[Output]]
    wait: Wait


class Batcher:
    """Serves submissions in order. With `depth` 2 a batch starts before the previous one is done."""

    def __init__(self, launch: Launch, *, batch_size: int, depth: int) -> None:
        self.batch_size = batch_size
        self._launch = launch
        self._depth = depth
        self._queue: queue.SimpleQueue[tuple[Pixels, Future[Output]] | None] = queue.SimpleQueue()
        self._held: tuple[Pixels, Future[Output]] | None = None
        self._flights: deque[_Flight] = deque()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="imagemill-device", daemon=True)
        self._thread.start()

    def submit(self, pixels: Pixels) -> Future[Output]:
        """Return a future of the output for these rows, uint8 [n, h, w, 3]."""
        future: Future[Output] = Future()
        self._queue.put((pixels, future))
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

    def _take(self) -> list[tuple[Pixels, Future[Output]]]:
        """Take up to `batch_size` waiting rows; block only while the device is idle."""
        group: list[tuple[Pixels, Future[Output]]] = []
        rows = 0
        while self._open:
            item, self._held = self._held, None
            if item is None:
                try:
                    item = self._queue.get(block=not group and not self._flights)
                except queue.Empty:
                    break
            if item is None:
                self._open = False
                break
            if group and rows + len(item[0]) > self.batch_size:
                self._held = item
                break
            if item[1].set_running_or_notify_cancel():
                group.append(item)
                rows += len(item[0])
        return group

    def _start(self, group: list[tuple[Pixels, Future[Output]]]) -> None:
        parts, futures = [pixels for pixels, _ in group], [future for _, future in group]
        try:
            fits = sum(map(len, parts)) <= self.batch_size
            wait = self._launch(parts) if fits else self._piecewise(parts)
        except DeviceOutOfMemory:
            wait = self._smaller(parts)
        except Exception as error:
            wait = _raises(error)
        self._flights.append(_Flight(parts, futures, wait))

    def _finish(self, flight: _Flight) -> None:
        try:
            try:
                output = flight.wait()
            except DeviceOutOfMemory:
                output = self._smaller(flight.parts)()
        except Exception as error:
            for future in flight.futures:
                future.set_exception(error)
            return
        start = 0
        for part, future in zip(flight.parts, flight.futures, strict=True):
            end = start + len(part)
            future.set_result(Output(output.logits[start:end], output.features[start:end]))
            start = end

    def _smaller(self, parts: list[Pixels]) -> Wait:
        """Halve the batch size until `parts` fit, and keep that size from then on."""
        while self.batch_size > 1:
            self.batch_size //= 2
            try:
                return self._piecewise(parts)
            except DeviceOutOfMemory:
                continue
            except Exception as error:
                return _raises(error)
        return _raises(
            DeviceOutOfMemory(
                "The device has no memory for a single image; stop other processes that use it, or use a smaller model."
            )
        )

    def _drain(self) -> None:
        """Finish the batches in flight, which hold scarce memory and buffers."""
        while self._flights:
            self._finish(self._flights.popleft())

    def _piecewise(self, parts: list[Pixels]) -> Wait:
        """Run `parts` in batches of `batch_size`, one at a time, with nothing else in flight."""
        self._drain()
        rows = np.concatenate(parts)
        outputs = [
            self._launch([rows[start : start + self.batch_size]])() for start in range(0, len(rows), self.batch_size)
        ]
        whole = Output(
            np.concatenate([output.logits for output in outputs]),
            np.concatenate([output.features for output in outputs]),
        )
        return lambda: whole


def _raises(error: Exception) -> Wait:
    def wait() -> Output:
        raise error

    return wait
