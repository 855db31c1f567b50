"""Counts the seconds in which a device computes, however many batches of however many models at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contract.instruments import DEVICE_BUSY_SECONDS

_devices: dict[str, Busy] = {}


def busy_on(device: str) -> Busy:
    """Return the counter of a device, such as `cuda:0`; there is one a process."""
    return _devices.setdefault(device, Busy(device))


class Busy:
    """The batches that this process has on a device."""

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

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the time of the block, whether or not it raises."""
        self.begin()
        try:
            yield
        finally:
            self.end()
