"""Reads files ahead of who needs them, within a budget of requests and of memory.

It decides what is read with one request and how many requests are under way, not how a request is made.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from contract.data.items import Item
from contract.errors import ImageError

SPAN = 8 * 2**20  # one GET of 8 MiB costs the store as much CPU as eight of 100 KB
_FIRST_SPAN = 2**20  # so that the device has work early
_GAP = 64 * 2**10  # reading over a gap is cheaper than another request
_REQUESTS = 32
_BYTES = 48 * 2**20
_UNKNOWN_SIZE = 2**20
_PATIENCE = 1.0
"""Seconds after which `Reading.next` says that nothing came."""


@dataclass(frozen=True)
class Span:
    """Adjacent members of one tar, or one object (`end` is None), read with one request."""

    items: tuple[Item, ...]
    start: int = 0
    end: int | None = None

    @property
    def cost(self) -> int:
        return self.end - self.start if self.end is not None else self.items[0].size or _UNKNOWN_SIZE

    @property
    def web(self) -> bool:
        return self.end is None and not self.items[0].uri.startswith("s3://")


def spans(items: Iterable[Item], max_bytes: int) -> Iterator[Span]:
    """Yield what is read with one request each: neighbours in a tar together, everything else alone."""
    run: list[Item] = []
    limit = _FIRST_SPAN

    def flush() -> Iterator[Span]:
        nonlocal limit
        if run:
            last = run[-1]
            yield Span(tuple(run), run[0].offset or 0, (last.offset or 0) + (last.size or 0))
            run.clear()
            limit = SPAN

    for item in items:
        packed = item.tar is not None and item.offset is not None and item.size is not None
        if not packed or (item.size or 0) > max_bytes:
            yield from flush()
            yield Span((item,))
            continue
        assert item.offset is not None and item.size is not None
        if run:
            first, last = run[0], run[-1]
            end = (last.offset or 0) + (last.size or 0)
            neighbour = item.tar == last.tar and 0 <= item.offset - end <= _GAP
            if not neighbour or item.offset + item.size - (first.offset or 0) > limit:
                yield from flush()
        run.append(item)
    yield from flush()


class Request(Protocol):
    """A request under way."""

    @property
    def future(self) -> Future[list[bytes | ImageError]]: ...


@dataclass(frozen=True)
class Arrived:
    """The bytes of a span, or errors in their place; `first` is the number of its first file."""

    first: int
    found: list[bytes | ImageError]
    cost: int


@dataclass(eq=False)
class _UnderWay:
    span: Span
    first: int
    cost: int
    future: Future[list[bytes | ImageError]] | None = None
    slow: bool = False


class Reading:
    """One pass over some files. `start(span, told)` begins a request; it calls `told` if that turns out slow.

    A slow request counts neither as a request nor in the budget until it has arrived, so that it keeps no other one
    from being made; how many there may be is up to `start`. Use it from one thread, and close it.
    """

    def __init__(self, wanted: Iterator[Span], start: Callable[[Span, Callable[[], None]], Request]) -> None:
        self._wanted, self._start = wanted, start
        self._next = next(wanted, None)
        self._files = 0
        self._under_way: set[_UnderWay] = set()
        self._requests, self._budget = 0, _BYTES
        self._events: queue.SimpleQueue[tuple[_UnderWay, bool]] = queue.SimpleQueue()

    @property
    def done(self) -> bool:
        return self._next is None and not self._under_way

    @property
    def only_web(self) -> bool:
        """Whether everything that is waited for comes from the web."""
        return all(one.span.web for one in self._under_way)

    def next(self) -> Arrived | None:
        """Return what arrives next, in any order, or None if nothing did for a second; raises what reading raised."""
        until = time.monotonic() + _PATIENCE
        while True:
            self._fill()
            try:
                one, turned_slow = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return None
            if one not in self._under_way:
                continue
            if turned_slow:
                one.slow = True
                self._requests -= 1
                self._budget += one.cost
                continue
            self._under_way.discard(one)
            self._requests -= not one.slow
            self._budget += 0 if one.slow else one.cost
            assert one.future is not None
            found = one.future.result()
            cost = sum(len(data) for data in found if isinstance(data, bytes))
            self._budget -= cost
            return Arrived(one.first, found, cost)

    def release(self, cost: int) -> None:
        """Give back the budget of what is not held any more."""
        self._budget += cost

    def close(self) -> None:
        for one in self._under_way:
            if one.future is not None:
                one.future.cancel()

    def _fill(self) -> None:
        while self._next is not None and self._requests < _REQUESTS:
            span, cost = self._next, self._next.cost
            if self._budget < min(cost, _BYTES) and self._requests:
                return
            if self._budget <= 0 and self._under_way:
                return
            one = _UnderWay(span, self._files, cost)
            self._files += len(span.items)
            self._under_way.add(one)
            self._requests += 1
            self._budget -= cost
            self._next = next(self._wanted, None)
            request = self._start(span, partial(self._events.put, (one, True)))
            one.future = request.future
            one.future.add_done_callback(partial(self._arrived, one))

    def _arrived(self, one: _UnderWay, _: object) -> None:
        self._events.put((one, False))
