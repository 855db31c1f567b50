"""Holds the leases of the shards that this process works on, and notices when they must stop.

One thread renews them all, so that a busy task never forgets to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from contract.backend.ledger import Ledger, Mode
from contract.backend.trouble import Trouble
from contract.errors import JobStopped, LeaseLost, ServiceUnavailable, WorkerLeaving
from contract.jobs.status import ENDED
from worker.execution.exclusive import Turn

log = logging.getLogger(__name__)


class Lease:
    """The lease on one shard. The task reports progress; `check` raises if it must stop.

    `trouble` is what went wrong with the shard before, and `process` what an exception is remembered by.
    """

    def __init__(self, job: str, shard: int, token: str, trouble: Trouble = Trouble(), process: str = "") -> None:  # noqa: B008  # frozen
        self.job, self.shard, self.token = job, shard, token
        self.trouble, self.process = trouble, process
        self.mode: Mode = "waits"
        self._turn = Turn()
        self.ok = self.errors = 0
        self.metrics: Mapping[str, float] = {}
        self.progress_at: float | None = None
        self.over: str | None = None
        self.waiting = False

    def begin(self, turn: Turn) -> None:
        """Mark the start of the work, alone or beside others; from now on it must make progress."""
        self._turn = turn
        if self.mode != "notice":
            self.mode = "alone" if turn.alone else "shared"
        self.progress_at = time.monotonic()

    def absolve(self) -> None:
        """Forget what went wrong before, and let other shards run beside: this one has made progress that lasts."""
        self.trouble = Trouble()
        self._turn.share()
        if self.mode != "notice":
            self.mode = "shared"

    def progress(self, ok: int, errors: int, metrics: Mapping[str, float] | None = None) -> None:
        """Items of this shard done so far, and figures of the work for people."""
        self.ok, self.errors = ok, errors
        self.metrics = metrics or {}
        self.progress_at = time.monotonic()
        self.waiting = False

    def waits(self, *, gives_way: bool) -> None:
        """Mark that the shard waits for what has a deadline of its own, which is no standstill.

        It `gives_way` to another shard if that would not wait for the same: for the web, not for memory.
        """
        self.progress_at = time.monotonic()
        self.waiting = gives_way

    def check(self) -> None:
        """Raises JobStopped, LeaseLost or WorkerLeaving."""
        if self.over == "stopped":
            raise JobStopped(f"The job {self.job} was stopped.")
        if self.over == "lost":
            raise LeaseLost(f"Another worker holds shard {self.shard} of {self.job}.")
        if self.over == "leaving":
            raise WorkerLeaving(f"This worker is leaving; another runs shard {self.shard} of {self.job}.")


class LeaseRenewer:
    """Renews every lease of the process a few times within its life.

    Once `notice` was called, it also tells the ledger that the worker leaves, within a twentieth of a second.

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
        self._give_back_at: float | None = None
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

    def notice(self, seconds: float) -> None:
        """Let no death of this process count any more, and have its shards given back after `seconds`.

        Only sets a flag, so that a signal handler may call it.
        """
        if self._give_back_at is None:
            self._give_back_at = time.monotonic() + seconds

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
                if self._give_back_at is not None:
                    self._tell(held, time.monotonic() >= self._give_back_at)
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + self._renew_every
                    for lease in held:
                        answer = self._ledger.renew(
                            lease.job, lease.shard, lease.token, lease.ok, lease.errors, lease.metrics, lease.mode
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

    def _tell(self, held: list[Lease], give_back: bool) -> None:
        for lease in held:
            if lease.mode != "notice":
                lease.mode = "notice"
                self._ledger.notice(lease.job, lease.shard, lease.token)
            if give_back and lease.over is None:
                lease.over = "leaving"
