"""How a worker process ends: it takes nothing new, hands back what does not end in time, and its exit code says why.

    SIGTERM → shards end → hand back the rest → end what still hangs → (SIGKILL by the platform)

It knows no message and no kind of job.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from contract.backend.ledger import Ledger
from contract.errors import ServiceUnavailable
from worker.execution.resources import Resources

if TYPE_CHECKING:
    from worker.execution.leases import Lease

log = logging.getLogger(__name__)

EXIT_STALLED = 70
"""A worker's shard made no progress for `IMAGEMILL_STALL_SECONDS`; start the worker again."""
EXIT_AFRESH = 71
"""A known good image failed on a worker, or a shard that failed on it needs another process; start the worker again."""
EXIT_UNFIT = 72
"""A worker cannot load its own code, as after an upgrade in place; start the worker again."""

_HAND_BACK_SECONDS = 15.0
"""Before the grace is over; half the grace if that is shorter than twice as long."""
_STOP_SECONDS = 5.0
"""For a shard to stop at its next batch once it was handed back; then its lease is released for it."""
_HURRY_SECONDS = 10.0
"""From a second SIGINT, or a SIGQUIT, to the end."""
_LOOK_SECONDS = 0.1


def hand_back_after(grace: float) -> float:
    """Return how many seconds after SIGTERM unfinished shards are handed back."""
    return max(grace - _HAND_BACK_SECONDS, grace / 2)


def end_after(grace: float) -> float:
    """Return how many seconds after SIGTERM the process ends, whatever still hangs in it; before `grace`."""
    return grace - min(3.0, grace / 10)


class Leaving:
    """Ends one process, once, within the grace of its platform. The first reason gives the exit code; 0 if it was told.

    From `begin` on, the death of the process counts against nothing.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources, self._settings = resources, resources.settings
        self._lock = threading.Lock()
        self._hand_back_at = self._end_at = float("inf")
        self.since: float | None = None
        """When it began, in seconds since the epoch."""
        self.exit_code = 0
        self._ends_with: int | None = None

    def start(self) -> None:
        """Start the thread that keeps the times; without it, only `begin` is noticed."""
        threading.Thread(target=self._keep_times, name="leaving", daemon=True).start()

    def begin(self, *, hurry: bool = False) -> None:
        """Take nothing new, and let running shards end, except trainings, which another worker continues.

        In a `hurry` they are handed back at once. A signal handler may call it, and again.
        """
        now, grace = time.monotonic(), self._settings.grace_seconds
        if self.since is None:
            self.since = time.time()
            self._hand_back_at, self._end_at = now + hand_back_after(grace), now + end_after(grace)
        if hurry:
            self._hand_back_at = min(self._hand_back_at, now)
            self._end_at = min(self._end_at, now + _HURRY_SECONDS)
        self._resources.leaving.set()
        if (renewer := self._resources.renewer_made()) is not None:
            renewer.notice(self._hand_back_at - now)

    def drain(self) -> None:
        """Do what SIGTERM does, because somebody asked for it elsewhere."""
        if self.since is None:
            log.warning("Leaving, as `imagemill workers drain` asks")
            os.kill(os.getpid(), signal.SIGTERM)

    def unfit(self, error: Exception) -> bool:
        """Have Celery end this process after its running shards, because it cannot load its code.

        Return False if it is leaving already. Whatever started the process starts it again.
        """
        if not self._decide(EXIT_UNFIT):
            return False
        log.critical("Leaving, because the code of this worker cannot be loaded", exc_info=error)
        self._end()
        return True

    def afresh(self, why: str) -> None:
        """Give every shard back and end this process, to be started again by whatever started it."""
        if self._decide(EXIT_AFRESH):
            log.critical("Leaving, to be started again: %s", why)
            self._end()

    def watch(self) -> None:
        """Leave if a shard has made no progress for too long; whatever started this process starts it again."""
        if (found := self.stalled()) is not None:
            lease, idle = found
            log.critical("Shard %d of %s has made no progress for %.0f s; leaving", lease.shard, lease.job, idle)
            os._exit(EXIT_STALLED)

    def stalled(self) -> tuple[Lease, float] | None:
        """Return a shard that has made no progress for too long, and for how many seconds; None if all go on.

        One that waits behind others goes on as long as they do (`worker.engine.motion`).
        """
        for lease in self._held():
            moved = lease.moved_at()
            idle = 0.0 if moved is None else time.monotonic() - moved
            if idle > self._settings.stall_seconds:
                return lease, idle
        return None

    def farewell(self) -> None:
        """Take back the heartbeat, without waiting for a Redis that does not answer."""
        with suppress(ServiceUnavailable), closing(Ledger(self._settings, patience=0.0)) as ledger:
            ledger.leave(self._resources.name)

    def over(self, code: int | None) -> None:
        """Note that nothing is left to do; `exit` then ends the process, with `code` where no reason gave another."""
        self._ends_with = self.exit_code or code or 0

    def exit(self) -> None:
        """End a process that is over; for `atexit`.

        The interpreter is not torn down: that takes seconds, and threads of an engine may crash in it.
        """
        if self._ends_with is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._ends_with)

    def _decide(self, code: int) -> bool:
        """Return whether this is the first reason to leave."""
        with self._lock:
            first = self.since is None and not self.exit_code
            if first:
                self.exit_code = code
        return first

    def _end(self) -> None:
        from celery.worker import state

        self.begin()
        state.should_stop = self.exit_code

    def _keep_times(self) -> None:
        """Hand back what is left when its time comes, and end the process at the end of its time."""
        self._resources.leaving.wait()
        # In a thread of its own: Redis may keep it waiting.
        threading.Thread(target=self._hand_back, name="hand back", daemon=True).start()
        while time.monotonic() < self._end_at:
            time.sleep(_LOOK_SECONDS)
        log.warning("Ending with code %d, although something hangs: the grace is nearly over", self.exit_code)
        os._exit(self.exit_code)

    def _hand_back(self) -> None:
        while time.monotonic() < self._hand_back_at:
            time.sleep(_LOOK_SECONDS)
        for lease in self._held():  # the renewer says so too, unless Redis keeps it waiting
            lease.over = lease.over or "leaving"
        time.sleep(_STOP_SECONDS)
        for lease in self._held():
            log.warning("Shard %d of %s does not stop; it is handed back nevertheless", lease.shard, lease.job)
            with suppress(ServiceUnavailable):
                self._resources.renewer.abandon(lease)

    def _held(self) -> list[Lease]:
        renewer = self._resources.renewer_made()
        return renewer.held() if renewer is not None else []
