"""A worker that takes its time as long as the file `slow` in the folder of its cache says so, in seconds.

Each look at its lease takes so much longer: for an image that is labelled, and for a group of those that are made or
learnt from.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from worker.app import app
from worker.execution.leases import Lease

_check = Lease.check


def _slowly(lease: Lease) -> None:
    with suppress(FileNotFoundError):
        seconds = float((Path(os.environ["IMAGEMILL_CACHE_DIR"]) / "slow").read_text())
        threading.Event().wait(seconds)
    _check(lease)


Lease.check = _slowly  # type: ignore[assignment, method-assign]

__all__ = ["app"]
