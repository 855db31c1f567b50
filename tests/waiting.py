"""Waiting for something to become true, in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")

_BUSY = 4
"""How many times longer a busy machine may take than a quiet one: a bound is there to end a hang, not to test speed."""


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
