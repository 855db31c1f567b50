"""A controller that looks after ended segments twice a second, so that a test need not wait for half a minute."""

from __future__ import annotations

from worker.app import app
from worker.control.watching import afterwards

afterwards._LOOK_SECONDS = 0.5

__all__ = ["app"]
