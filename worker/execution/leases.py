"""Holds the leases of the shards that this process works on, and notices when they must stop.

One thread renews them all, so that a busy task never forgets to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from contract.backend.ledger import Ledger
from contract.errors import JobStopped, LeaseLost, ServiceUnavailable
from contract.jobs.status import ENDED

log = logging.getLogger(__name__)


class Lease:
    """The lease on one shard. The task reports progress; `check` raises if it must stop."""

    def __init__(self, job: str, shard: int, token: str) -> None:
        self.job, self.shard, self.token = job, shard, token
        self.ok = self.errors = 0
        self.metrics: Mapping[str, float] = {}
        self.progress_at: float | None = None
        self.over: str | None = None
        self.waiting = False

    def begin(self) -> None:
        """Mark the start of the work; from now on it must make progress."""
        self.progress_at = time.monotonic()

    def progress(self, ok: int, errors: int, metrics: Mapping[str, float] | None = None) -> None:
        """Items of this shard done so far, and figures of the work for people."""
        self.ok, self.errors = ok, errors
        self.metrics = metrics or {}
        self.progress_at = time.monotonic()
        self.waiting = False

    def waits(self) -> None:
        """Mark that the shard only waits for the web, which has deadlines of its own: that is no standstill."""
        self.progress_at = time.monotonic()
        self.waiting = True

    def check(self) -> None:
        """Raises JobStopped or LeaseLost."""
        if self.over == "stopped":
            raise JobStopped(f"The job {self.job} was stopped.")
        if self.over == "lost":
            raise LeaseLost(f"Another worker holds shard {self.shard} of {self.job}.")


class LeaseRenewer:
    """Renews every lease of the process a few times within its life.

    `take` is told whenever the number of shards that only wait for the web changes.
    """

    def __init__(
        self, ledger: Ledger, lease_seconds: float, take: Callable[[int], None] = lambda waiting: None
    ) -> None:
        self._ledger = ledger
        self._take, self._waiting = take, 0
        # At least four chances before a lease lapses, and progress that looks alive.
        self._renew_every = min(1.0, lease_seconds / 4)
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="renewer", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, lease: Lease) -> Iterator[Lease]:
        with self._lock:
            self._held[lease.token] = lease
        try:
            yield lease
        finally:
            with self._lock:
                del self._held[lease.token]

    def held(self) -> list[Lease]:
        with self._lock:
            return list(self._held.values())

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        renew_at = 0.0
        # 50 ms is one batch of one lane on a CPU core: a canceled job stops within it.
        while not self._stop.wait(0.05):
            held = self.held()
            waiting = sum(lease.waiting for lease in held)
            if waiting != self._waiting:
                self._waiting = waiting
                self._take(waiting)
            try:
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + self._renew_every
                    for lease in held:
                        answer = self._ledger.renew(
                            lease.job, lease.shard, lease.token, lease.ok, lease.errors, lease.metrics
                        )
                        if answer in ("stopped", "lost"):
                            lease.over = answer
                else:
                    ended = {job for job in {lease.job for lease in held} if self._ledger.state(job) in ENDED}
                    for lease in held:
                        if lease.job in ended:
                            lease.over = "stopped"
            except ServiceUnavailable as error:
                # The bucket is the truth: the work goes on, and its commit will count.
                log.warning("Leases were not renewed: %s", error)
