"""`/livez` and `/readyz`, for whoever restarts this server or sends clients to it.

A server that waits for Redis or the store lives, since a restart would not help; it is ready only while both answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from contract.errors import ImagemillError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
"""Between two looks at the servers, whoever asks how often."""
_OLD_SECONDS = 60.0
"""For how long `last` believes what a look found; one that takes longer waits for a server."""


class Readiness:
    """Whether the servers behind this one answer, looked at every few seconds at most."""

    def __init__(self, checks: Mapping[str, Callable[[], object]], clock: Callable[[], float] = time.monotonic) -> None:
        self._checks, self._clock = checks, clock
        self._lock = threading.Lock()
        self._at, self._found = float("-inf"), [""]

    def reasons(self) -> list[str]:
        """Return which servers do not answer, one line each; nothing if all do. Addresses are left to the log."""
        with self._lock:
            if self._clock() - self._at >= _LOOK_SECONDS:
                self._found = [f"{name}: does not answer" for name, check in self._checks.items() if not _passes(check)]
                self._at = self._clock()
            return self._found

    def last(self) -> list[str]:
        """Return what the last look found, at once: nobody is asked. A process in which `reasons` is called nowhere
        is not ready.
        """
        return self._found if self._clock() - self._at < _OLD_SECONDS else ["no look at them has ended lately"]


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except ImagemillError as error:
        log.info("Not ready: %s", error)
        return False
    return True
