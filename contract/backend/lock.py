"""A lock in Redis that is renewed while it is held, and that only its holder can release.

A holder that dies, or is cut off from Redis, loses the lock after its term. Code that works under a lock checks `held`
between steps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from redis import Redis
from redis.exceptions import LockError
from redis.lock import Lock as RedisLock

from contract.errors import RedisUnavailable

log = logging.getLogger(__name__)


class Lock:
    """A lock that is held; made by `Ledger.lock`."""

    def __init__(
        self, lock: RedisLock, seconds: float, since: float, mapped: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._lock, self._seconds, self._since, self._mapped = lock, seconds, since, mapped
        self._lost = False

    @property
    def held(self) -> bool:
        """Whether the last renewal found the lock ours, and its term has not ended since."""
        return not self._lost and time.monotonic() - self._since < self._seconds

    def renew(self) -> bool:
        """Restart the term; return False if the lock was lost, so that another process may hold it."""
        now = time.monotonic()
        try:
            with self._mapped():
                self._lock.reacquire()
            self._since = now
        except LockError:
            self._lost = True
        return self.held


@contextmanager
def lock(
    redis: Redis, name: str, seconds: float, mapped: Callable[[], AbstractContextManager[None]]
) -> Iterator[Lock | None]:
    """Hold the lock `name` for the body of a `with` statement, or yield None if another process holds it.

    `seconds` is the term; a thread renews the lock every quarter of it. `mapped` translates the errors of redis-py.
    """
    # It is renewed by another thread than the one that acquired it.
    taken = RedisLock(redis, name, timeout=seconds, blocking=False, thread_local=False)
    began = time.monotonic()
    with mapped():
        acquired = taken.acquire()
    if not acquired:
        yield None
        return
    held, done = Lock(taken, seconds, began, mapped), threading.Event()

    def renew() -> None:
        while not done.wait(seconds / 4):
            try:
                if not held.renew():
                    return
            except RedisUnavailable as error:
                log.warning("The lock %s was not renewed: %s", name, error)

    thread = threading.Thread(target=renew, name=f"renew {name}", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        done.set()
        thread.join()
        # If it is no longer ours, its new holder keeps it; if Redis is away, it expires.
        with suppress(LockError, RedisUnavailable), mapped():
            taken.release()
