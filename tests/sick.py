"""A worker whose runtime does as the file `sick` in the folder of the cache says, as long as it is there.

`raises`: every image makes it raise. `slow`: each batch takes a second longer. `hangs`: a batch ends when it no longer
says so, and the file `hangs` shows that one waits. Whatever it says, an image of one shade of gray makes it raise.
It is a worker of `tests.paced` too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.paced import app
from worker.execution import model_cache

_load: Callable[..., Any] = model_cache.load_runtime


def _sick(*args: Any) -> Any:
    runtime = _load(*args)
    submit = runtime.submit

    def sickly(pixels: Any, *more: Any) -> Any:
        file = Path(os.environ["IMAGEMILL_CACHE_DIR"]) / "sick"
        orders = file.read_text().split() if file.exists() else []
        while "hangs" in orders:
            file.with_name("hangs").touch()
            threading.Event().wait(0.1)
            orders = file.read_text().split() if file.exists() else []
        if "slow" in orders:
            threading.Event().wait(1.0)
        if "raises" in orders:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if any(np.ptp(image) == 0 for image in pixels):
            raise RuntimeError("no kernel for an image of one shade")
        return submit(pixels, *more)

    runtime.submit = sickly
    return runtime


model_cache.load_runtime = _sick  # type: ignore[assignment]

__all__ = ["app"]
