"""Reads files ahead of who needs them, within a number of requests and the memory of the process.

It decides what is read with one request and how many requests are under way, not how a request is made.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from contract.data.image_bytes import NeedsRoom
from contract.data.items import Item
from contract.errors import ImageError
from worker.engine.budget import Pool, Reservation, release_all
from worker.engine.motion import behind, moved

SPAN = 8 * 2**20  # one GET of 8 MiB costs the store as much CPU as eight of 100 KB
_FIRST_SPAN = 2**20  # so that the device has work early
_GAP = 64 * 2**10  # reading over a gap is cheaper than another request
_REQUESTS = 32
_BYTES = 48 * 2**20
_UNKNOWN, _UNKNOWN_WEB = 2 * 2**20, 256 * 2**10
"""Bytes that are reserved at first for a file of unknown size; from the web there may be a hundred slow ones."""
_COPIES = 2
"""A file exists twice for a moment, when what was received is joined or cut."""
_PATIENCE = 1.0
"""Seconds after which `Reading.next` says that nothing came."""


@dataclass(eq=False)
class Group:
    """Sequences whose memory is reserved at once, for a part of one is of no use; `left` counts their spans."""

    cost: int
    left: int
    memory: Reservation | None = None


@dataclass(frozen=True)
class Span:
    """Adjacent members of one tar, or one object (`end` is None), read with one request."""

    items: tuple[Item, ...]
    start: int = 0
    end: int | None = None
    group: Group | None = None

    def cost(self, unknown: int | None = None) -> int:
        """Return the bytes to expect; `unknown` is what counts for a file that does not say, None a first guess."""
        if self.end is not None:
            return self.end - self.start
        guess = _UNKNOWN_WEB if self.web else _UNKNOWN
        return self.items[0].size or (guess if unknown is None else unknown)

    @property
    def web(self) -> bool:
        return self.end is None and not self.items[0].uri.startswith("s3://")


def grouped(sequences: Iterable[Sequence[Item]], max_bytes: int) -> Iterator[Span]:
    """Yield the spans of sequences, given as the files of each; a group has the files of about one span."""
    files: list[Item] = []
    first = True
    limit = _FIRST_SPAN

    def flush() -> Iterator[Span]:
        nonlocal first, limit
        if files:
            made = list(spans(files, max_bytes, first=first))
            group = Group(sum(span.cost(max_bytes) for span in made), len(made))
            yield from (replace(span, group=group) for span in made)
            files.clear()
            first, limit = False, SPAN

    held = 0
    for sequence in sequences:
        size = sum(file.size or max_bytes for file in sequence)
        if held + size > limit:
            yield from flush()
            held = 0
        files.extend(sequence)
        held += size
    yield from flush()


def spans(items: Iterable[Item], max_bytes: int, *, first: bool = True) -> Iterator[Span]:
    """Yield what is read with one request each: neighbours in a tar together, everything else alone.

    The `first` one is small.
    """
    run: list[Item] = []
    limit = _FIRST_SPAN if first else SPAN

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
            begin, last = run[0].offset or 0, run[-1]
            end = (last.offset or 0) + (last.size or 0)
            neighbour = item.tar == last.tar and 0 <= item.offset - end <= _GAP
            if not neighbour or item.offset + item.size - begin > limit:
                yield from flush()
        run.append(item)
    yield from flush()


class Request(Protocol):
    """A request under way."""

    @property
    def future(self) -> Future[list[bytes | ImageError]]: ...


class SizeRoom:
    """The room of a file whose size may not be what was announced."""

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation

    @property
    def bytes(self) -> int:
        return self._reservation.count // _COPIES

    def grow(self, size: int) -> bool:
        return self._reservation.grow(_COPIES * size)


@dataclass(eq=False)
class Arrived:
    """The bytes of a span, or errors in their place; `first` is the number of its first file.

    `memory` is what is reserved for each file; whoever takes the file releases it.
    """

    first: int
    found: list[bytes | ImageError | None]
    memory: list[Reservation]

    def take(self, number: int) -> bytes | ImageError:
        """Return a file and forget it, so that its bytes end with their last user."""
        found, self.found[number] = self.found[number], None
        assert found is not None, "each file is taken once"
        return found


@dataclass(eq=False)
class _UnderWay:
    span: Span
    first: int
    cost: int
    reservation: Reservation | None = None
    future: Future[list[bytes | ImageError]] | None = None
    slow: bool = False


Start = Callable[[Span, "SizeRoom | None", Callable[[], None]], Request]


class Reading:
    """One pass over some files. `start(span, room, told)` begins a request; it calls `told` if that turns out slow.

    A slow request counts neither as a request nor in the read-ahead until it has arrived, so that it keeps no other one
    from being made; how many there may be is up to `start`.

    The memory of each span is reserved in `pool` before its request is made, in the order of the spans. That of a file
    of unknown size is little at first; if it needs more and that is not free, it is read again with what it needs.
    With `in_order`, where arrived files wait for earlier ones, `most` bytes are reserved instead: nothing that is held
    then waits for more. Use a reading from one thread, and close it.
    """

    def __init__(self, wanted: Iterator[Span], start: Start, pool: Pool, most: int, *, in_order: bool = False) -> None:
        self._wanted, self._start, self._pool, self._most, self._in_order = wanted, start, pool, most, in_order
        self._next = next(wanted, None)
        self._pending: _UnderWay | None = None
        self._again: deque[_UnderWay] = deque()
        self._files = 0
        self._under_way: set[_UnderWay] = set()
        self._kept: set[Reservation] = set()
        self._requests, self._ahead = 0, _BYTES
        self._events: queue.SimpleQueue[tuple[_UnderWay, bool] | None] = queue.SimpleQueue()
        self._said = False

    @property
    def done(self) -> bool:
        return self._next is None and self._pending is None and not self._again and not self._under_way

    @property
    def only_web(self) -> bool:
        """Whether everything that is waited for comes from the web."""
        return all(one.span.web for one in self._under_way) and not self.waits

    @property
    def waits(self) -> bool:
        """Whether the next request waits for memory."""
        asked = self._pending.reservation if self._pending is not None else None
        return asked is not None and not asked.granted.is_set()

    def next(self) -> Arrived | None:
        """Return what arrives next, in any order, or None if nothing did for a second; raises what reading raised.

        None is returned at once when memory runs out: who holds files must pass them on before anything else can come.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            self._fill()
            if self.waits and not self._said and self._events.empty():
                self._said = True
                return None
            try:
                with behind(self._pool.moved) if self.waits else nullcontext():
                    event = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return None
            if event is None or event[0] not in self._under_way:
                continue
            one, turned_slow = event
            if turned_slow:
                one.slow = True
                self._requests -= 1
                self._ahead += one.cost
                continue
            moved()
            arrived = self._take(one)
            if arrived is not None:
                self._said = False
                return arrived

    def handed_over(self, memory: Reservation) -> None:
        """Count a file as passed on; whoever has it releases its memory."""
        self._kept.discard(memory)
        self._ahead += memory.count

    def close(self) -> None:
        for one in self._under_way:
            if one.future is not None and not one.future.cancel():
                one.future.add_done_callback(partial(_release, one))
            else:
                _release(one)
        for waiting in (*self._again, *((self._pending,) if self._pending else ())):
            _release(waiting)
        release_all(self._kept)

    def _take(self, one: _UnderWay) -> Arrived | None:
        """Return the files of a request that has ended; None if it must be made again with more memory."""
        assert one.future is not None and one.reservation is not None
        # The future knows `one` by its callback. With both in a circle, files would lie in memory until a collection.
        future, one.future = one.future, None
        self._under_way.discard(one)
        self._requests -= not one.slow
        self._ahead += 0 if one.slow else one.cost
        try:
            found = future.result()
        except NeedsRoom as error:
            one.reservation.release()
            self._again.append(_UnderWay(one.span, one.first, error.size))
            return None
        except BaseException:
            one.reservation.release()
            raise
        sizes = [len(data) if isinstance(data, bytes) else 0 for data in found]
        memory = [one.reservation.split(size) for size in sizes]
        group = one.span.group
        if group is not None:
            group.left -= 1
        if group is None or not group.left:
            one.reservation.release()
            self._kept.discard(one.reservation)
        self._ahead -= sum(part.count for part in memory)
        self._kept.update(memory)
        return Arrived(one.first, [*found], memory)

    def _fill(self) -> None:
        while self._requests < _REQUESTS:
            if self._pending is None:
                self._pending = self._upcoming()
            if (one := self._pending) is None:
                return
            if (self._ahead < min(one.cost, _BYTES) and self._requests) or (self._ahead <= 0 and self._under_way):
                return
            if one.reservation is None:
                one.reservation = self._ask(one)
            if not one.reservation.granted.is_set():
                return
            self._pending, self._said = None, False
            self._under_way.add(one)
            self._requests += 1
            self._ahead -= one.cost
            room = None if self._in_order or one.span.group or one.span.end else SizeRoom(one.reservation)
            request = self._start(one.span, room, partial(self._events.put, (one, True)))
            one.future = request.future
            one.future.add_done_callback(partial(self._arrived, one))

    def _upcoming(self) -> _UnderWay | None:
        if self._again:
            return self._again.popleft()
        if self._next is None:
            return None
        span = self._next
        one = _UnderWay(span, self._files, span.cost(self._most if self._in_order or span.group else None))
        self._files += len(span.items)
        self._next = next(self._wanted, None)
        return one

    def _ask(self, one: _UnderWay) -> Reservation:
        wake = partial(self._events.put, None)
        group = one.span.group
        if group is None:
            return self._pool.ask(_COPIES * min(one.cost, max(self._most, SPAN)), wake)
        if group.memory is None:
            group.memory = self._pool.ask(_COPIES * group.cost, wake)
            self._kept.add(group.memory)
        return group.memory

    def _arrived(self, one: _UnderWay, _: object) -> None:
        self._events.put((one, False))


def _release(one: _UnderWay, _: object = None) -> None:
    if one.reservation is not None:
        one.reservation.release()
