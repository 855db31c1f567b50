"""A worker whose decoder dies, with the whole process, of an image that begins with `poison`."""

from __future__ import annotations

import os
import signal
from typing import Any

from worker.app import app
from worker.engine import pipeline
from worker.engine.images import decoders

PREFIX = b"poison"
_open_each = decoders.open_each


def _deadly(items: list[bytes], *args: Any, **kwargs: Any) -> Any:
    if any(data.startswith(PREFIX) for data in items):
        os.kill(os.getpid(), signal.SIGKILL)
    return _open_each(items, *args, **kwargs)


pipeline.open_each = _deadly  # type: ignore[attr-defined, assignment]

__all__ = ["app"]
