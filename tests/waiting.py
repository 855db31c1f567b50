"""Waiting for something to become true, in place of sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

_BUSY = 4
"""How many times longer a busy machine may take than a quiet one: a bound is there to end a hang, not to test speed."""
_LOOK = 0.05


def wait_until(predicate: Callable[[], T | Literal[False] | None], timeout: float = 10.0, message: str = "it") -> T:
    """Ask every 50 ms until the answer is true, and return it.

    Fails the test after `timeout` seconds, as they would be on a quiet machine.
    """
    deadline = time.monotonic() + _BUSY * timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {_BUSY * timeout:.0f} s for {message}; the last answer was {answer!r}")
        time.sleep(0.05)
    return answer


@dataclass
class Standstill:
    """For how long the test itself has not run, in seconds: what it measures took as much longer."""

    seconds: float = 0.0


@contextmanager
def standing_still() -> Iterator[Standstill]:
    """Count the time in which a busy machine lets this process stand still, until the block ends."""
    found, ended = Standstill(), threading.Event()

    def look() -> None:
        last = time.monotonic()
        while not ended.wait(_LOOK):
            now = time.monotonic()
            found.seconds += max(0.0, now - last - 2 * _LOOK)
            last = now

    thread = threading.Thread(target=look, name="standstill", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
