"""A circuit breaker before a Redis that somebody waits for: once a call had no answer, the next ones fail at once.

Otherwise each call of a page would wait as long again, and the threads that wait for Redis would serve nobody else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from contract.errors import RedisUnavailable

log = logging.getLogger(__name__)

INTERACTIVE_SECONDS = 5.0
"""How long a call waits for an answer in a process in which somebody waits for the call.

A Redis that is well stands still now and then for a second or two: while it forks to save itself (about 10 ms a GiB,
says "Diagnosing latency issues" of its manual), while a slow disk takes its append-only file, or while a busy machine
runs something else. None of this may look like a Redis that is away, and nobody wants to wait for longer than this.
"""
_LOOK_SECONDS = 0.5
"""Between two looks at a Redis that does not answer."""


class Circuit:
    """Is opened by a call that had no answer, and closed by a thread as soon as `look` has one.

    `look` asks Redis for anything, once, and raises RedisUnavailable if it does not answer.
    """

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._why = ""
        self._closed = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether Redis is known not to answer."""
        return bool(self._why)

    def check(self) -> None:
        """Raise RedisUnavailable while it is open."""
        if why := self._why:
            raise RedisUnavailable(why)

    def open(self, why: str) -> None:
        """Have calls fail until Redis answers; `why` is what they say."""
        with self._lock:
            if not self._why:
                self._why, self._closed = why, threading.Event()
                watch = threading.Thread(target=self._watch, args=(self._closed,), name="redis circuit", daemon=True)
                watch.start()

    def close(self) -> None:
        """Let calls pass, and look no longer."""
        with self._lock:
            self._why = ""
            self._closed.set()

    def _watch(self, closed: threading.Event) -> None:
        while not self._answers():
            if closed.wait(_LOOK_SECONDS):
                return
        self.close()

    def _answers(self) -> bool:
        try:
            self._look()
        except RedisUnavailable:
            return False
        except Exception as error:
            # That a password is refused is an answer, which the next call gets too. A connection that is closed amid a
            # look may raise anything, and then nobody waits for it any more.
            log.debug("The look at Redis ended: %r", error)
        return True
