"""Lets the shards of one process run together, and each suspect alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


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


class Turn:
    """The right to compute. `alone` says whether nothing else runs in this process."""

    def __init__(self, alone: bool = False, share: Callable[[], None] = lambda: None) -> None:
        self.alone, self._share = alone, share

    def share(self) -> None:
        """Let others run beside: the shard has shown that it does not end its process."""
        self.alone = False
        share, self._share = self._share, lambda: None
        share()


class Turns:
    """Gives turns to the shards of a process: together, but a suspect alone.

    A suspect must neither take others down with it nor be blamed for them. A long task, such as a training, is not
    waited for, since that would keep everything else waiting; who runs beside one is not alone.
    """

    def __init__(self) -> None:
        self._lock = SharedExclusiveLock()
        self._long = 0
        self._counting = threading.Lock()

    @contextmanager
    def hold(self, *, suspect: bool, long: bool) -> Iterator[Turn]:
        """Wait for a turn, and hold it for the body of a `with` statement."""
        with ExitStack() as stack:
            if suspect:
                alone = stack.enter_context(ExitStack())
                alone.enter_context(self._lock.exclusive())

                def share() -> None:
                    if long:
                        stack.enter_context(self._beside())
                    alone.close()

                yield Turn(not self._long, share)
            elif long:
                with self._lock.shared():  # once no suspect runs
                    stack.enter_context(self._beside())
                yield Turn()
            else:
                with self._lock.shared():
                    yield Turn()

    @contextmanager
    def _beside(self) -> Iterator[None]:
        with self._counting:
            self._long += 1
        try:
            yield
        finally:
            with self._counting:
                self._long -= 1
