"""SIGTERM and SIGINT let a worker's shards end; SIGQUIT and a second SIGINT hand them back at once.

Celery's own SIGQUIT waits for every thread, however long, and its SIGINT ends with code 1. The code here is 0.
"""

from __future__ import annotations

import signal
from types import FrameType

from worker.process.leaving import Leaving


def install(leaving: Leaving) -> None:
    """Install the handlers for SIGINT and SIGQUIT beside Celery's for SIGTERM; call it in the main thread."""
    term = signal.getsignal(signal.SIGTERM)
    assert callable(term), "Celery installs its handlers before it is ready"

    def interrupt(number: int, frame: FrameType | None) -> None:
        leaving.begin(hurry=leaving.since is not None)
        term(signal.SIGTERM, frame)

    def leave_at_once(number: int, frame: FrameType | None) -> None:
        leaving.begin(hurry=True)
        term(signal.SIGTERM, frame)

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGQUIT, leave_at_once)
