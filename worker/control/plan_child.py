"""The process that plans one job, so that a poisonous source ends it and not the controller.

It holds the credentials that planning needs. It limits its own memory, reports each step, and stops between two
requests when it is asked to.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.data.children.limits import die_with_parent, expendable, limit_memory, no_core_dump
from contract.errors import ServiceUnavailable
from contract.jobs.kinds import KINDS
from contract.jobs.lifecycle import Backend
from contract.jobs.sources import SOURCES
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from contract.telemetry import logs
from worker.control.plan import plan

log = logging.getLogger(__name__)

STEP, DONE, LATER, MEMORY = b"s", b"d", b"l", b"m"
"""What the process says: a step, followed by the key that is read; planned; try again later; out of memory."""
_STEP_SECONDS = 0.5

PRELOAD = sorted(
    {
        "worker.control.plan_child",
        *(str(kind.plan).partition(":")[0] for kind in KINDS.values()),
        *(str(kind.lister).partition(":")[0] for kind in SOURCES.values() if kind.lister is not None),
        # What sending a first message and reading a first object would import: half of the 120 ms of CPU of a child.
        *("celery.app.amqp", "celery.app.events", "celery.app.task", "celery.fixups.django", "celery.loaders.app"),
        *("celery.worker", "celery.events", "celery.backends.base", "encodings.idna", "_strptime"),
    }
)
"""The modules that are imported once, for all planners; one that is missing is left to the child."""


class PlanPaused(ServiceUnavailable):
    """The planner was asked to stop; another goes on behind its last shard."""


def serve(settings: Settings, job: str, pipe: Connection) -> None:
    """Plan a job within the limits of `settings`, and say through `pipe` how it went."""
    die_with_parent()
    no_core_dump()
    expendable()
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.set_up(settings.log, logging.INFO, "[%(asctime)s: %(levelname)s/plan] %(message)s")
    logs.tell_always(job=job)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    patience = settings.plan_stall_seconds / 2  # a server that is away is not a source that hangs
    backend = Backend(
        _WatchedStore(settings, job, pipe, leaving, patience=min(patience, settings.store_patience_seconds)),
        Ledger(settings, patience=min(patience, 30.0)),
        Queues(make_app(settings)),
    )
    if not limit_memory(settings.plan_memory_mb * 2**20):
        log.info("This system does not limit the memory of a process; the controller watches it instead")
    try:
        plan(backend, job)
        pipe.send_bytes(DONE)
    except ServiceUnavailable as error:
        log.info("The plan of %s goes on later: %s", job, error)
        pipe.send_bytes(LATER)
    except MemoryError:
        pipe.send_bytes(MEMORY)


class _WatchedStore(ObjectStore):
    """A store that reports each answer, and none after the process was asked to leave."""

    def __init__(self, settings: Settings, job: str, pipe: Connection, leaving: threading.Event, **more: Any) -> None:
        super().__init__(settings, **more)
        self._keys, self._pipe, self._leaving = JobKeys(job), pipe, leaving
        self._told, self._told_at = "", 0.0

    def _call(self, operation: str, bucket: str, key: str, *args: Any, **more: Any) -> Any:
        if self._leaving.is_set():
            raise PlanPaused("the planner was asked to stop")
        self._tell(key)
        found = super()._call(operation, bucket, key, *args, **more)
        self._tell(key)
        return found

    def _tell(self, key: str) -> None:
        """Report a step: at once if another object of the source is read, else twice a second."""
        if key.startswith(self._keys.root) and not key.startswith(self._keys.input_prefix):
            key = self._told
        now = time.monotonic()
        if key == self._told and now - self._told_at < _STEP_SECONDS:
            return
        self._told, self._told_at = key, now
        with suppress(OSError):  # the controller is gone, and this process soon
            self._pipe.send_bytes(STEP + key.encode()[:900])
