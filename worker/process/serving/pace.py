"""How fast one served model answers here: what it can do, measured while something waits, and its latencies."""

from __future__ import annotations

import threading
import time
from collections import deque

_KEPT = 500
_NEW = 0.5
"""Weight of the newest measurement."""


class Pace:
    """Counts images and latencies between two looks; thread-safe."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        """Images per second that this process can do."""
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._images = 0
        self._starved = True
        self._lately: deque[tuple[float, int]] = deque()
        self._latencies: deque[float] = deque(maxlen=_KEPT)

    def starved(self) -> None:
        """Note that nothing waited: what is done in this interval says little about what could be."""
        with self._lock:
            self._starved = True

    def done(self, images: int, latency_ms: float) -> None:
        """Note a request that has its reply."""
        with self._lock:
            self._images += images
            self._latencies.append(latency_ms)

    def look(self) -> tuple[float, float, float]:
        """Return images per second lately, and the median and the 99th percentile in ms; measure the rate."""
        with self._lock:
            now = time.monotonic()
            seconds, images = now - self._since, self._images
            if images and not self._starved and seconds > 0:
                self.rate += _NEW * (images / seconds - self.rate)
            if images or self._starved:  # else a batch takes longer than an interval, which goes on
                self._since, self._images, self._starved = now, 0, False
            self._lately.append((now, images))
            while self._lately[0][0] < now - 10:
                self._lately.popleft()
            span = max(0.5, now - self._lately[0][0])
            latencies = sorted(self._latencies)
        if not latencies:
            return 0.0, 0.0, 0.0
        return (
            round(sum(count for _, count in self._lately) / span, 1),
            round(latencies[len(latencies) // 2], 2),
            round(latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))], 2),
        )
