"""Holds the leases of the shards that this process works on, and notices when they must stop.

One thread renews them all, so that a busy task never forgets to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from contract.backend.ledger import Held, Ledger, Mode
from contract.backend.trouble import Trouble
from contract.errors import JobStopped, LeaseLost, ServiceUnavailable, ShardDone, WorkerLeaving
from worker.engine.motion import Motion, working_for
from worker.execution.exclusive import Turn

log = logging.getLogger(__name__)


class Lease:
    """The lease on one shard. The task reports progress; `check` raises if it must stop.

    `trouble` is what went wrong with the shard before, and `process` what an exception is remembered by. Another worker
    runs the shard of a `copy` too. The shard belongs to a `run` of the job.
    """

    def __init__(
        self,
        job: str,
        shard: int,
        token: str,
        trouble: Trouble = Trouble(),  # noqa: B008  # frozen
        process: str = "",
        *,
        copy: bool = False,
        run: int = 0,
    ) -> None:
        self.job, self.shard, self.token, self.copy, self.run = job, shard, token, copy, run
        self.trouble, self.process = trouble, process
        self.mode: Mode = "waits"
        self._turn = Turn()
        self.ok = self.errors = 0
        self.metrics: Mapping[str, float] = {}
        self.progress_at: float | None = None
        self.motion = Motion()
        """Moves with what is done for the shard between two reports of progress."""
        self.over: str | None = None
        self.waiting = False
        self.outcome = "committed"
        """What becomes of an attempt that raises nothing: it may be `overtaken`."""
        self.changed: Callable[[], None] = lambda: None
        """Called when `waiting` has changed."""

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

    def moved_at(self) -> float | None:
        """Return when the shard, or what it waits behind, last moved; None before its work has begun."""
        return None if self.progress_at is None else max(self.progress_at, self.motion.at())

    def progress(self, ok: int, errors: int, metrics: Mapping[str, float] | None = None) -> None:
        """Items of this shard done so far, and figures of the work for people."""
        self.ok, self.errors = ok, errors
        self.metrics = metrics or {}
        self.progress_at = time.monotonic()
        self._wait(False)

    def gives_way(self) -> None:
        """Mark that the shard waits for the web, whose deadlines are its own, so that another one may run meanwhile."""
        self.progress_at = time.monotonic()
        self._wait(True)

    def waits_here(self) -> None:
        """Mark that the shard waits for what another one would wait for too, as memory; no progress by itself."""
        self._wait(False)

    def _wait(self, waiting: bool) -> None:
        if waiting != self.waiting:
            self.waiting = waiting
            self.changed()

    def check(self) -> None:
        """Raises JobStopped, LeaseLost, ShardDone or WorkerLeaving."""
        if self.over == "stopped":
            raise JobStopped(f"The job {self.job} was stopped.")
        if self.over == "done":
            raise ShardDone(f"Another worker was faster with shard {self.shard} of {self.job}.")
        if self.over == "lost":
            raise LeaseLost(f"Another worker holds shard {self.shard} of {self.job}.")
        if self.over == "leaving":
            raise WorkerLeaving(f"This worker is leaving; another runs shard {self.shard} of {self.job}.")


class LeaseRenewer:
    """Renews every lease of the process with one call, at least four times within their life.

    The answer also says which jobs were stopped: a shard of one that is canceled stops within a second, or a quarter of
    the lease if that is shorter. While no lease is held it asks nothing. Once `notice` was called, it tells the ledger
    at once that the worker leaves.

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
        self._late: list[Lease] = []
        """To be given back once Redis answers; their holders are gone."""
        self._lock = threading.Lock()
        # Unlike an event, its `put` may interrupt itself, so that a signal handler may call it.
        self._changes: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        self._give_back_at: float | None = None
        self._renew_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="renewer", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, lease: Lease) -> Iterator[Lease]:
        """Renew a lease for the body of a `with` statement, in which this thread works for it."""
        lease.changed = self._wake
        with self._lock:
            self._held[lease.token] = lease
        self._wake()
        try:
            with working_for(lease.motion):
                yield lease
        finally:
            with self._lock:
                self._held.pop(lease.token, None)  # unless it was abandoned
            if lease.waiting:
                self._wake()

    def held(self) -> list[Lease]:
        """Return the leases that are held."""
        with self._lock:
            return list(self._held.values())

    def abandon(self, lease: Lease) -> None:
        """Release the lease of a shard that does not stop; what it still writes is a copy."""
        with self._lock:
            self._held.pop(lease.token, None)
        self._ledger.release(lease.job, lease.shard, lease.token)

    def release_later(self, lease: Lease) -> None:
        """Give a shard back once Redis answers, however late: a lease that only lapsed would be taken for a death.

        It may run again after a pause: what kept its holder from releasing it may last, as a damaged spec does.
        """
        with self._lock:
            self._late.append(lease)
        self._wake()

    def notice(self, seconds: float) -> None:
        """Let no death of this process count any more, and have its shards given back after `seconds`.

        A signal handler may call it.
        """
        at = time.monotonic() + seconds
        self._give_back_at = at if self._give_back_at is None else min(at, self._give_back_at)
        self._wake()

    def close(self) -> None:
        """Stop renewing."""
        self._closed = True
        self._wake()
        self._thread.join(5)

    def _wake(self) -> None:
        self._changes.put(None)

    def _run(self) -> None:
        while True:
            self._pause()
            if self._closed:
                return
            held = self.held()
            waiting = sum(lease.waiting for lease in held)
            if waiting != self._waiting:
                self._waiting = waiting
                self._take(waiting)
            now = time.monotonic()
            try:
                if self._give_back_at is not None:
                    self._tell(held, now >= self._give_back_at)
                if not held and not self._late:
                    self._renew_at = None
                elif self._renew_at is None:
                    self._renew_at = now + self._renew_every
                elif now >= self._renew_at:
                    self._renew_at = now + self._renew_every
                    self._renew(held)
                    self._release_late()
            except ServiceUnavailable as error:
                # The bucket is the truth: the work goes on, and its commit will count.
                log.warning("Leases were not renewed: %s", error)
            except Exception:  # without this thread every lease would lapse, and its shard be blamed
                log.exception("Leases were not renewed")

    def _pause(self) -> None:
        """Wait until leases must be renewed or given back, or something has changed."""
        now, until = time.monotonic(), self._renew_at
        if until is not None and self._give_back_at is not None and self._give_back_at > now:
            until = min(until, self._give_back_at)
        try:
            self._changes.get(timeout=None if until is None else max(0.0, until - now))
            while True:  # several changes are answered by one look
                self._changes.get_nowait()
        except Empty:
            return

    def _renew(self, held: list[Lease]) -> None:
        answers = self._ledger.renew_all(
            [
                Held(
                    lease.job,
                    lease.shard,
                    lease.token,
                    ok=lease.ok,
                    errors=lease.errors,
                    metrics=lease.metrics,
                    mode=lease.mode,
                )
                for lease in held
            ]
        )
        for lease, answer in zip(held, answers, strict=True):
            if answer in ("stopped", "done", "lost"):
                lease.over = answer

    def _release_late(self) -> None:
        while self._late:
            lease = self._late[0]
            try:
                self._ledger.postpone(lease.job, lease.shard, lease.token, lease.trouble.pause())
            except ServiceUnavailable:
                raise
            except Exception:  # it must not keep the others
                log.exception("Shard %d of %s is not given back; its lease expires", lease.shard, lease.job)
            with self._lock:
                self._late.pop(0)

    def _tell(self, held: list[Lease], give_back: bool) -> None:
        for lease in held:
            if lease.mode != "notice":
                lease.mode = "notice"
                self._ledger.notice(lease.job, lease.shard, lease.token)
            if give_back and lease.over is None:
                lease.over = "leaving"
