"""Lets the shards of one process run together, unless one must run alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedExclusiveLock:
    """A shared-exclusive lock; a waiting exclusive holder lets no new shared holder in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shared = 0
        self._waiting_exclusive = 0
        self._exclusive = False

    @property
    def waiting(self) -> int:
        """Number of threads that wait to hold the lock alone."""
        return self._waiting_exclusive

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other shared holders."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive and not self._waiting_exclusive)
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._changed:
            self._waiting_exclusive += 1
            self._changed.wait_for(lambda: not self._exclusive and not self._shared)
            self._waiting_exclusive -= 1
            self._exclusive = True
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()
