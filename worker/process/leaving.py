"""How a worker process ends: it takes nothing new, gives back what is left, and says with its exit code why.

It knows no message and no kind of job.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from worker.engine.budget import Budget
from worker.execution.resources import Resources

log = logging.getLogger(__name__)

EXIT_STALLED = 70
"""A worker's shard made no progress for `IMAGEMILL_STALL_SECONDS`; start the worker again."""
EXIT_AFRESH = 71
"""A known good image failed on a worker, or a shard that failed on it needs another process; start the worker again."""
EXIT_UNFIT = 72
"""A worker cannot load its own code, as after an upgrade in place; start the worker again."""
_GRACE_SECONDS = 2.0
"""After the shards should have been given back, before a process that hangs is ended."""


class Leaving:
    """Ends one process, once: the first reason gives the exit code."""

    def __init__(self, resources: Resources, memory: Budget) -> None:
        self._resources, self._settings, self._memory = resources, resources.settings, memory
        self._lock = threading.Lock()
        self.exit_code = 0

    def begin(self) -> None:
        """Take nothing new, and let running shards end, except trainings, which another worker continues.

        From now on the death of this process counts against nothing. A signal handler may call it.
        """
        self._resources.leaving.set()
        if (renewer := self._resources.renewer_made()) is not None:
            renewer.notice(self._settings.leave_seconds)

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
        if not self._decide(EXIT_AFRESH):
            return
        log.critical("Leaving, to be started again: %s", why)
        self._end()
        if self._resources.health.unfit:
            # What hangs on a broken device never ends by itself.
            timer = threading.Timer(self._settings.leave_seconds + _GRACE_SECONDS, os._exit, (EXIT_AFRESH,))
            timer.daemon = True
            timer.start()

    def watch(self) -> None:
        """Leave if a shard has made no progress for too long; whatever started this process starts it again."""
        renewer, memory = self._resources.renewer_made(), self._memory
        for lease in renewer.held() if renewer is not None else ():
            idle = time.monotonic() - (lease.progress_at or time.monotonic())
            if memory.busy:  # a shard that waits its turn is not stuck as long as images come and go
                idle = min(idle, memory.idle_for())
            if idle > self._settings.stall_seconds:
                log.critical("Shard %d of %s has made no progress for %.0f s; leaving", lease.shard, lease.job, idle)
                os._exit(EXIT_STALLED)

    def _decide(self, code: int) -> bool:
        """Return whether this is the first reason to leave."""
        with self._lock:
            known, self.exit_code = bool(self.exit_code), self.exit_code or code
        return not known

    def _end(self) -> None:
        from celery.worker import state

        self.begin()
        state.should_stop = self.exit_code
