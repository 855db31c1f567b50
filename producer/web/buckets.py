"""Limits the requests of each token: a bucket that fills at the token's rate, in the memory of this process.

Several processes each admit the rate. That is the price of a limit that needs no server to answer: with Redis down the
API still reads from the bucket, and the limit still holds.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MOST = 10_000


class Limiter:
    """Token buckets by name; each holds a second's worth of requests, at least one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each bucket will be full again."""

    def take(self, name: str, rate: float, *, burst: float | None = None) -> float:
        """Take one request from a bucket that fills at `rate` a second; return 0, or the seconds to wait for one."""
        size = max(1.0, rate if burst is None else burst)
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at.pop(name, now), now)
            # What is missing to full, in requests; the next may be taken while it is at most size - 1.
            missing = (full_at - now) * rate
            waits = (missing - (size - 1.0)) / rate
            if waits <= 1e-9:
                full_at += 1.0 / rate
                waits = 0.0
            self._full_at[name] = full_at
            while len(self._full_at) > _MOST:
                self._full_at.popitem(last=False)
            return max(0.0, waits)
