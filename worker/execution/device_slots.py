"""Shares the device of a process: one shard at a time on an accelerator, one per core on a CPU.

Those on a CPU share its cores. Two shards of one thread each make 22 % more images of 28 × 28 a second than one after
the other with two threads, since no thread waits for a slower one at the end of each layer; see docs/log.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_LOOK = 0.5
"""Seconds between two looks at what may end the wait."""


class DeviceSlots:
    """Slots to compute in: `threads` on a CPU, one on an accelerator. A thread that has a slot may take it again."""

    def __init__(self, device: torch.device, threads: int) -> None:
        self._threads = threads
        self._free = threading.Semaphore(threads if device.type == "cpu" else 1)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        """Notified when nothing goes first any more."""
        self._taken = self._first = 0
        self._mine = threading.local()

    @contextmanager
    def turn(self, waits: Callable[[], None]) -> Iterator[None]:
        """Hold a slot, once one is free and nothing goes first, with a fair share of the cores for torch.

        `waits` is called twice a second until then; what it raises ends the wait.
        """
        depth: int = getattr(self._mine, "depth", 0)
        if not depth:
            while not self._free.acquire(timeout=_LOOK):
                waits()
            with self._lock:
                self._taken += 1
        try:
            self._let_first(waits)
        except BaseException:
            if not depth:
                self._give_back()
            raise
        self._mine.depth = depth + 1
        torch.set_num_threads(max(1, self._threads // self._taken))  # of this thread alone
        try:
            yield
        finally:
            self._mine.depth = depth
            if not depth:
                self._give_back()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Compute ahead of shards, with all cores: whoever holds a slot waits before its next turn."""
        with self._lock:
            self._first += 1
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            with self._lock:
                self._first -= 1
                self._idle.notify_all()

    def _let_first(self, waits: Callable[[], None]) -> None:
        while True:
            with self._lock:
                if self._idle.wait_for(lambda: not self._first, _LOOK):
                    return
            waits()

    def _give_back(self) -> None:
        with self._lock:
            self._taken -= 1
        self._free.release()
