"""One worker process, put together: its thread warms it up, tests it, and sends its heartbeats while it serves."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING

from celery import Celery

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.errors import InvalidSettings
from contract.garbage_collection import set_aside
from contract.jobs.lifecycle import Backend
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_CONTROL, QUEUE_GENERATE
from contract.settings import Settings
from contract.telemetry import logs, traces
from worker.engine.budget import set_total
from worker.execution.health import Health
from worker.execution.resources import Resources
from worker.process.heartbeat import BEAT_SECONDS, Heartbeat
from worker.process.leaving import Leaving
from worker.process.observed import Observed
from worker.process.self_test import SelfTest
from worker.process.serve import Messages
from worker.process.warm_up import warm_up

if TYPE_CHECKING:
    from worker.process.serving.keeper import Keeper

log = logging.getLogger(__name__)

_LAST_BEAT_SECONDS = 2.0


class Process:
    """One worker process; `messages` serves what comes from the queue, and `leaving` ends it."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.settings = settings
        self.backend = Backend(
            ObjectStore(settings, patience=settings.store_patience_seconds),
            Ledger(settings, patience=30.0),
            Queues(app),
        )
        self.resources = Resources(self.backend, settings, f"worker@{socket.gethostname()}-{os.getpid()}")
        set_total(settings.memory)
        self.leaving = Leaving(self.resources)
        self._self_test = SelfTest(self.resources)
        self.resources.health = Health(self._self_test.run, self.leaving.afresh, self.resources.leaving)
        self.messages = Messages(self.resources, self._self_test, self.leaving)
        self.observed = Observed(self.resources, self._self_test, self.leaving)
        self._keeper: Keeper | None = None
        self._stop = threading.Event()
        self._computing = threading.Lock()
        """Held while the thread of the heartbeats loads or tests a model, which ends before the process does."""
        self._beating = threading.Lock()

    def start(self, name: str, queues: list[str], slots: int) -> None:
        """Start heartbeats, load the built-in model if this worker runs classify shards, and test this process."""
        self.resources.name, self.resources.queues, self.resources.slots = name, frozenset(queues), slots
        logs.tell_always(worker=name)
        try:
            traces.set_up(
                self.settings, "imagemill-controller" if QUEUE_CONTROL in queues else "imagemill-worker", name
            )
        except InvalidSettings as error:
            log.error("There are no traces: %s", error)
        self._self_test.begin(queues)
        self.leaving.start()
        beats = threading.Thread(target=self._live, args=(queues,), name="heartbeat", daemon=True)
        self.observed.begin(queues, beats)
        beats.start()

    def stop(self) -> None:
        """Take back the heartbeat, and let go of models, leases and threads."""
        self._stop.set()
        if self._keeper is not None:
            self._keeper.stop()
        with self._computing:
            pass  # `leaving` ends what hangs
        if self._beating.acquire(timeout=_LAST_BEAT_SECONDS):  # else Redis does not answer, and the heartbeat expires
            self.leaving.farewell()
        self.resources.close()
        self.observed.close()
        traces.close()

    def _serve(self) -> None:
        """Answer single requests with the models that are served."""
        from worker.process.serving.keeper import Keeper  # late, because the controller imports no engine

        self._keeper = Keeper(self.resources)
        self.resources.loading = lambda: self._keeper.loading if self._keeper else ""
        self._keeper.start()

    def _live(self, queues: list[str]) -> None:
        with self._computing:
            if QUEUE_CLASSIFY in queues:
                warm_up(self.resources, self.leaving)
            if {QUEUE_CLASSIFY, QUEUE_GENERATE} & set(queues) and not self._stop.is_set():
                self._serve()
            heartbeat = Heartbeat(self.resources, self.leaving, queues, self.observed.address)
        while not self._stop.is_set():
            set_aside()  # a shard may have loaded a runtime
            with self._computing:
                if self._stop.is_set():
                    return
                self._self_test.step()
            with self._beating:
                if self._stop.is_set():  # the last word is the farewell
                    return
                with self.observed.asking():
                    heartbeat.beat()
            self.observed.beat()
            self.leaving.watch()
            self._stop.wait(BEAT_SECONDS)
