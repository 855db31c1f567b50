"""Finalizes jobs beside the tasks of a controller: a very large job takes minutes, and ticks must not wait for it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from contract.errors import ImagemillError
from contract.jobs.lifecycle import Backend
from contract.telemetry import logs
from worker.control.finalize import finalize
from worker.execution.resources import Resources

log = logging.getLogger(__name__)

_AT_ONCE = 4
"""Jobs that a controller finalizes at the same time; more wait, and the reconciler asks again for them."""


@dataclass
class Finalizers:
    """The finalizers of one process."""

    backend: Backend
    lock_seconds: float
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_AT_ONCE, "finalize"))
    _under_way: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _leaving: threading.Event = field(default_factory=threading.Event)

    def finalize(self, job: str) -> None:
        """Have a job finalized, unless it is under way here; return at once."""
        with self._lock:
            if job in self._under_way or self._leaving.is_set():
                return
            self._under_way.add(job)
            self._pool.submit(logs.scope(job=job)(self._run), job)

    def leave(self) -> None:
        """Stop at the next commit; another controller starts over."""
        with self._lock:
            self._leaving.set()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, job: str) -> None:
        try:
            finalize(self.backend, job, self.lock_seconds, self._leaving)
        except ImagemillError as error:
            log.warning("Finalizing %s waits for the reconciler: %s", job, error)
        except Exception:
            log.exception("Finalizing %s failed", job)
        finally:
            with self._lock:
                self._under_way.discard(job)


def make_finalizers(resources: Resources) -> Finalizers:
    """Return the finalizers of a controller."""
    return Finalizers(resources.backend, resources.settings.lease_seconds)
