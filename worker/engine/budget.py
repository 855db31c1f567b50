"""The memory that images may take in this process, before a model has seen them.

There are two pools: one for files as they came, one for the pixels that decoders make of them. A file's bytes are
reserved before it is fetched, its pixels before it is decoded, and both are given back once the image has shrunk to
what the model takes. It knows neither files nor decoders.

Nothing can wait for itself. Whoever decodes already holds encoded bytes and asks for pixels, never the other way
round; holds pixels for one image at a time; and gives them back without asking for anything else. So the pixels always
come free, and with them the encoded bytes.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.engine.cores import cores
from worker.engine.motion import At, behind, moved

_MIB = 2**20
_LEAST = 64 * _MIB
_NO_LIMIT = 2**60
"""cgroup v1 states the lack of a limit as a number near 2^63."""


class Reservation:
    """A share of a pool: asked for, then granted, then given back. Releasing it twice is harmless."""

    def __init__(self, pool: Pool, count: int, told: Callable[[], None]) -> None:
        self._pool, self.count, self.told = pool, count, told
        self.granted = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the bytes may be used; return whether they may."""
        if self.granted.is_set():
            return True
        with behind(self._pool.moved):
            granted = self.granted.wait(timeout)
        if granted:
            moved()
        return granted

    def shrink(self, count: int) -> None:
        """Give back all but `count` bytes, once the real size is known; never grows."""
        self._pool.shrink(self, count)

    def grow(self, count: int) -> bool:
        """Raise what is granted to `count` bytes if that takes no waiting; return whether it did."""
        return self._pool.grow(self, count)

    def split(self, count: int) -> Reservation:
        """Move `count` bytes of what is granted, or what is left of it, to another reservation."""
        return self._pool.split(self, count)

    def release(self) -> None:
        """Give everything back, or withdraw the request."""
        self._pool.shrink(self, 0, withdraw=True)


class Pool:
    """A number of bytes that threads share, first come, first served.

    A request that does not fit waits, and later ones wait behind it, so that small images cannot starve a large one.
    A request for more than the whole pool is granted once nobody else holds any of it. Its holders may wait for
    something else, which moves at `then`.
    """

    def __init__(self, total: int, then: At = lambda: 0.0) -> None:
        self.total = total
        self._then = then
        self.held = self.peak = 0
        self._waiting: deque[Reservation] = deque()
        self._lock = threading.Lock()
        self._moved = time.monotonic()
        self._bounded = 0

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    def moved(self) -> float:
        """Return when bytes were last granted or given back, on the monotonic clock; now while a holder is `bounded`.

        The requests in front of one that waits are finite, and each moves the pool as it comes and goes.
        """
        return time.monotonic() if self._bounded else max(self._moved, self._then())

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Mark the work of a holder that a deadline ends, so that who waits behind it does not stand still."""
        with self._lock:
            self._bounded += 1
        try:
            yield
        finally:
            with self._lock:
                self._bounded -= 1
                self._moved = time.monotonic()

    def ask(self, count: int, told: Callable[[], None] = lambda: None) -> Reservation:
        """Queue for `count` bytes without waiting; `told` is called, on any thread, when they are granted."""
        wanted = Reservation(self, max(0, count), told)
        with self._lock:
            self._waiting.append(wanted)
            granted = self._serve()
        _tell(granted)
        return wanted

    def nothing(self) -> Reservation:
        """Return a granted reservation of no bytes."""
        empty = Reservation(self, 0, lambda: None)
        empty.granted.set()
        return empty

    def joined(self, parts: Iterable[Reservation]) -> Reservation:
        """Return one granted reservation in place of several, which then hold nothing."""
        whole = self.nothing()
        with self._lock:
            for part in parts:
                whole.count += part.count
                part.count = 0
        return whole

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Wait for `count` bytes, and hold them inside the `with` block."""
        wanted = self.ask(count)
        try:
            wanted.wait()
            yield
        finally:
            wanted.release()

    def grow(self, reservation: Reservation, count: int) -> bool:
        """Raise a granted reservation to `count` bytes unless that, or somebody before, would have to wait."""
        with self._lock:
            more = count - reservation.count
            if more <= 0:
                return True
            alone = self.held == reservation.count
            if self._waiting or not (alone or self.held + more <= self.total):
                return False
            reservation.count += more
            self.held += more
            self.peak = max(self.peak, self.held)
            return True

    def split(self, reservation: Reservation, count: int) -> Reservation:
        """Move at most `count` bytes of a granted reservation to a new one."""
        part = self.nothing()
        with self._lock:
            part.count = min(max(0, count), reservation.count)
            reservation.count -= part.count
        return part

    def shrink(self, reservation: Reservation, count: int, *, withdraw: bool = False) -> None:
        """Reduce a reservation to `count` bytes; with `withdraw`, leave the queue if it was not granted."""
        with self._lock:
            surplus = reservation.count - max(0, count)
            if surplus > 0:
                reservation.count -= surplus
                if reservation.granted.is_set():
                    self.held -= surplus
                    self._moved = time.monotonic()
            if withdraw and not reservation.granted.is_set() and reservation in self._waiting:
                self._waiting.remove(reservation)
            granted = self._serve()
        _tell(granted)

    def _serve(self) -> list[Reservation]:
        """Grant whatever fits, in order; the caller holds the lock."""
        granted = []
        while self._waiting and (not self.held or self.held + self._waiting[0].count <= self.total):
            first = self._waiting.popleft()
            self.held += first.count
            self.peak = max(self.peak, self.held)
            self._moved = time.monotonic()
            first.granted.set()
            granted.append(first)
        return granted


def release_all(reservations: Iterable[Reservation]) -> None:
    """Give back several reservations."""
    for one in reservations:
        one.release()


def _tell(granted: list[Reservation]) -> None:
    for one in granted:  # without the lock: a callback may ask for more
        one.told()


class Budget:
    """The two pools of a process: a third for `encoded` bytes, two thirds for `pixels`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.pixels = Pool(total - total // 3)
        self.encoded = Pool(total // 3, self.pixels.moved)

    @property
    def busy(self) -> bool:
        """Whether anybody waits for bytes."""
        return bool(self.encoded.waiting or self.pixels.waiting)


def default_total() -> int:
    """Return a quarter of the memory that this process may use, but at most 512 MiB and 512 MiB more for each core.

    The model, its activations and other processes of the machine have the rest. More than that would not make anything
    faster: it holds an image of 100 megapixels for each core, and the files to be decoded next.
    """
    return max(_LEAST, min(memory_limit() // 4, (1 + cores()) * 512 * _MIB))


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes that this process may use: the least of physical memory, RLIMIT_AS and its cgroups' limits."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_cgroup_limits(root)]
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    except (ImportError, OSError, ValueError):
        pass
    return min(limits)


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the memory limits of the process's cgroups and of all above them, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = mounts, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = mounts / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        # In a container the path may be the host's, of which only the root is mounted.
        for folder in (group, *group.parents):
            try:
                limit = int((folder / name).read_text())
            except (OSError, ValueError):  # absent, or "max"
                limit = _NO_LIMIT
            if limit < _NO_LIMIT:
                yield limit
            if folder == base:
                break


_of_process: Budget | None = None
_making = threading.Lock()


def budget() -> Budget:
    """Return the budget of this process, with the default total unless `set_total` was called before."""
    global _of_process
    with _making:
        if _of_process is None:
            _of_process = Budget(default_total())
        return _of_process


def use(instead: Budget) -> None:
    """Answer for this process with another's budget."""
    global _of_process
    with _making:
        _of_process = instead


def set_total(total: int) -> Budget:
    """Give this process a budget of `total` bytes, 0 being the default; call it before any image is read."""
    global _of_process
    with _making:
        _of_process = Budget(total or default_total())
        return _of_process
