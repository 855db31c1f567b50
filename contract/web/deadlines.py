"""Ends what a thread does on the network at a point in time, whatever it is waiting for.

A socket's timeout limits one read; a server that sends a byte a second never meets it. Here another thread shuts the
connection down, which ends a TLS handshake, a header and a body alike.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_TICK = 0.1


class Line:
    """A second handle on a connected socket, by which another thread can shut the connection down.

    Its connection and the deadline that uses it hold it; whoever drops it last closes it. A response outlives its
    connection object where the server closes after it.
    """

    def __init__(self, connected: socket.socket) -> None:
        # TLS takes the socket object over while it shakes hands; a handle of our own stays valid.
        self._socket = connected.dup()
        self._lock = threading.Lock()
        self._holders = 1

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def drop(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._socket.close()

    def cut(self) -> None:
        with self._lock, suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class Deadline:
    """The end of one fetch, counted from now."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._line: Line | None = None
        self._over = False

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.at - time.monotonic())

    @property
    def over(self) -> bool:
        return self._over or self.left == 0.0

    def use(self, line: Line | None) -> None:
        """Name the connection that the fetch uses from now on, or none."""
        with self._lock:
            if line is not None:
                line.hold()
                if self._over:
                    line.cut()
            before, self._line = self._line, line
        if before is not None:
            before.drop()

    def cut(self) -> None:
        with self._lock:
            self._over = True
            if self._line is not None:
                self._line.cut()


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def current() -> Deadline | None:
    """Return the deadline of the fetch that this thread runs."""
    return _current.get()


class Deadlines:
    """Watches the deadlines of all fetches of a client, with one thread that runs only while there are some."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[Deadline]:
        """Run the block's fetch within `seconds`; its connection is cut when they are over."""
        deadline = Deadline(seconds)
        token = _current.set(deadline)
        with self._changed:
            self._running.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
        try:
            yield deadline
        finally:
            _current.reset(token)
            deadline.use(None)
            with self._changed:
                self._running.discard(deadline)
                if not self._running:
                    self._changed.notify()

    def cut(self) -> None:
        """End every fetch now."""
        with self._changed:
            running = list(self._running)
        for deadline in running:
            deadline.cut()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(_TICK)
                if not self._running:
                    self._thread = None
                    return
                late = [deadline for deadline in self._running if deadline.at <= time.monotonic()]
            for deadline in late:
                deadline.cut()
