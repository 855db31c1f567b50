"""Counts the seconds in which a device computes, however many batches at a time."""

from __future__ import annotations

import threading
import time

from contract.instruments import DEVICE_BUSY_SECONDS


class Busy:
    """The batches that one engine has on a device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._batches, self._since = 0, 0.0

    def begin(self) -> None:
        """Note that a batch was given to the device."""
        with self._lock:
            if not self._batches:
                self._since = time.perf_counter()
            self._batches += 1

    def end(self) -> None:
        """Note that a batch came back, and count the time since the last one did or the first one began."""
        now = time.perf_counter()
        with self._lock:
            self._batches -= 1
            seconds, self._since = now - self._since, now
        DEVICE_BUSY_SECONDS.add(seconds, self._device)
