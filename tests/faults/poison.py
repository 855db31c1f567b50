"""A worker whose decoder dies, with the whole process, of an image that begins with `poison`."""

from __future__ import annotations

import os
import signal
from typing import Any

from worker.app import app
from worker.engine import pipeline

PREFIX = b"poison"
_open_item = pipeline.open_item


def _deadly(data: bytes, *args: Any, **kwargs: Any) -> Any:
    if data.startswith(PREFIX):
        os.kill(os.getpid(), signal.SIGKILL)
    return _open_item(data, *args, **kwargs)


pipeline.open_item = _deadly

__all__ = ["app"]
