"""When a piece of work last moved, so that a watchdog can tell waiting from standing still.

Work moves when a part of it is done. While it waits behind something else, its movements are that one's: what is stuck
is then whatever stands in front, and is found there. A wait without anything that moves in front of it is a standstill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

At = Callable[[], float]
"""Returns when something last moved, on the monotonic clock; `time.monotonic` is what moves until its own deadline."""


class Motion:
    """The last movement of one piece of work, which may run on several threads."""

    def __init__(self) -> None:
        self._moved = time.monotonic()
        self._ahead: list[At] = []

    def move(self) -> None:
        """Note that a part of the work is done."""
        self._moved = time.monotonic()

    def at(self) -> float:
        """Return when this work, or anything that it waits behind, last moved."""
        return max((self._moved, *(at() for at in tuple(self._ahead))))

    @contextmanager
    def behind(self, at: At) -> Iterator[None]:
        """Count the movements of what this work waits for as its own, inside the `with` block."""
        self.queue(at)
        try:
            yield
        finally:
            self.leave(at)

    def queue(self, at: At) -> None:
        """Begin to wait behind something, until `leave` is called with the same."""
        self._ahead.append(at)

    def leave(self, at: At) -> None:
        """End one wait that `queue` began; what moved meanwhile is not forgotten."""
        self._moved = max(self._moved, at())
        self._ahead.remove(at)


_current: ContextVar[tuple[Motion, ...]] = ContextVar("motions", default=())


def current() -> tuple[Motion, ...]:
    """Return the pieces of work that this thread works for."""
    return _current.get()


@contextmanager
def working_for(*motions: Motion) -> Iterator[None]:
    """Let this thread work for these, inside the `with` block."""
    token = _current.set(motions)
    try:
        yield
    finally:
        _current.reset(token)


def moved() -> None:
    """Note a movement of whatever this thread works for."""
    for motion in current():
        motion.move()


@contextmanager
def behind(at: At) -> Iterator[None]:
    """Let whatever this thread works for wait behind something, inside the `with` block."""
    with ExitStack() as stack:
        for motion in current():
            stack.enter_context(motion.behind(at))
        yield


def carried(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function to be called once, on another thread, which works there for what this thread works for."""
    context = copy_context()

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.run(function, *args, **kwargs)

    return call
