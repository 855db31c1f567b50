"""Runs fetches from the web side by side, so that slow ones hold up nobody.

Each host has a few lanes for quick fetches. One that takes longer than a second moves to a slow lane, of which there
are many, and the next fetch from its host begins. Waiting costs a thread and no core.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

SLOW_AFTER = 1.0
"""Seconds after which a fetch counts as slow."""
_TICK = 0.1


def host_of(url: str) -> str:
    """Return the part of an address by which fetches share lanes; any text is accepted."""
    return re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2].lower()


class Flight(Generic[T]):
    """One fetch. `slow` turns true while it runs, and `told` is called then."""

    def __init__(self, host: str, fetch: Callable[[], T], told: Callable[[], None]) -> None:
        self.host, self.fetch, self.told = host, fetch, told
        self.future: Future[T] = Future()
        self.began = 0.0
        self.slow = False


class Lanes(Generic[T]):
    """At most `lanes` fetches at once. A host has up to `per_host` quick ones, and half of all lanes for slow ones.

    Hosts that wait take turns. A quarter of the lanes is kept for quick fetches.
    """

    def __init__(self, lanes: int, per_host: int) -> None:
        self._lanes, self._per_host = lanes, per_host
        self._most_slow, self._most_slow_of_host = lanes - max(1, lanes // 4), max(1, lanes // 2)
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="web")
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Flight[T]]] = OrderedDict()
        self._running: set[Flight[T]] = set()
        self._quick: Counter[str] = Counter()
        self._slow: Counter[str] = Counter()
        self._moved = time.monotonic()
        self._watcher: threading.Thread | None = None
        self._closed = False

    @property
    def idle_for(self) -> float:
        """Seconds since a fetch began or ended. As each has a deadline, they bound how long all can be stuck."""
        return time.monotonic() - self._moved

    def submit(self, host: str, fetch: Callable[[], T], told: Callable[[], None] = lambda: None) -> Flight[T]:
        """Fetch when it is the host's turn; `told` is called, on another thread, if that becomes slow."""
        flight = Flight(host, fetch, told)
        with self._changed:
            if not self._running:
                self._moved = time.monotonic()
            self._waiting.setdefault(host, deque()).append(flight)
            self._begin()
        return flight

    def close(self) -> None:
        """Begin no other fetch."""
        with self._changed:
            self._closed = True
            waiting = [flight for flights in self._waiting.values() for flight in flights]
            self._waiting.clear()
            self._changed.notify()
        for flight in waiting:
            flight.future.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        """Begin whatever may begin; the caller holds the lock."""
        for host in list(self._waiting):
            flights = self._waiting[host]
            while flights and self._quick[host] < self._per_host and len(self._running) < self._lanes:
                flight = flights.popleft()
                if not flight.future.set_running_or_notify_cancel():
                    continue
                flight.began = self._moved = time.monotonic()
                self._running.add(flight)
                self._quick[host] += 1
                self._pool.submit(self._run, flight)
            if flights:
                self._waiting.move_to_end(host)
            else:
                del self._waiting[host]
        if self._running and self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="lanes", daemon=True)
            self._watcher.start()

    def _run(self, flight: Flight[T]) -> None:
        try:
            found = flight.fetch()
        except BaseException as error:
            self._end(flight)
            flight.future.set_exception(error)
        else:
            self._end(flight)
            flight.future.set_result(found)

    def _end(self, flight: Flight[T]) -> None:
        with self._changed:
            self._running.discard(flight)
            of_its_kind = self._slow if flight.slow else self._quick
            of_its_kind[flight.host] -= 1
            if not of_its_kind[flight.host]:
                del of_its_kind[flight.host]
            self._moved = time.monotonic()
            if not self._closed:
                self._begin()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(_TICK)
                if self._closed or not self._running:
                    self._watcher = None
                    return
                late = [f for f in self._running if not f.slow and time.monotonic() - f.began > SLOW_AFTER]
                turned = []
                for flight in late:
                    host = flight.host
                    if self._slow.total() < self._most_slow and self._slow[host] < self._most_slow_of_host:
                        flight.slow = True
                        self._slow[host] += 1
                        self._quick[host] -= 1
                        turned.append(flight)
                if turned:
                    self._begin()
            for flight in turned:
                flight.told()
