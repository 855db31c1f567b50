"""What a worker process tells of itself every two seconds, for whoever lists or matches workers."""

from __future__ import annotations

import logging
import os
import socket
import time

from contract.errors import ImagemillError, ServiceUnavailable
from contract.jobs.kinds import KINDS
from worker.confinement import layers
from worker.execution.resources import Resources
from worker.process.leaving import Leaving

log = logging.getLogger(__name__)

RUNS_MODELS = {kind.queue for kind in KINDS.values()}
"""The queues of shards."""
BEAT_SECONDS = 2.0
_BEAT_TTL = 15.0


class Heartbeat:
    """The heartbeat of one process that works on `queues`, and shows its metrics at an address, or nowhere."""

    def __init__(self, resources: Resources, leaving: Leaving, queues: list[str], metrics: str = "") -> None:
        self._resources, self._leaving, self._queues = resources, leaving, queues
        self._lasting = {
            "started_at": f"{time.time():.3f}",
            "process": resources.process,
            "metrics": metrics,
            **self._capabilities(),
        }

    def beat(self) -> None:
        """Write the heartbeat, which expires if some do not reach Redis; drain if the answer asks for it."""
        resources = self._resources
        try:
            ledger = resources.backend.ledger
            if ledger.beat(resources.name, _BEAT_TTL, **self._lasting, **self._vitals()) == resources.process:
                self._leaving.drain()
            resources.meter.publish(ledger)
        except ServiceUnavailable as error:
            log.warning("No heartbeat: %s", error)

    def _capabilities(self) -> dict[str, str]:
        """Return what this worker can compute on and in; nothing if it runs no models."""
        if not RUNS_MODELS & set(self._queues):
            return {}
        from worker.execution.capabilities import of_this_process

        try:
            return self._resources.once(of_this_process).heartbeat()
        except (ImagemillError, ImportError) as error:
            log.error("What this worker can compute in is not known: %s", error)
            return {}

    def _vitals(self) -> dict[str, str | int]:
        resources = self._resources
        vitals: dict[str, str | int] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "pool": resources.settings.pool,
            "rate": str(resources.meter.images_per_second()),
            "queues": ",".join(self._queues),
            "slots": resources.slots,
            "unfit": resources.health.unfit or ("it is leaving" if resources.leaving.is_set() else ""),
            "unconfined": ",".join(layers.missing()),
            "draining": "" if self._leaving.since is None else f"{self._leaving.since:.3f}",
        }
        if (models := resources.models_made()) is not None:
            runtimes = models.runtimes()
            vitals["models"] = ",".join(runtimes)
            vitals["device"] = ",".join(sorted({r.device for r in runtimes.values()}))
            vitals["runtime"] = ",".join(sorted({f"{r.name}/{r.precision}" for r in runtimes.values()}))
        if (renewer := resources.renewer_made()) is not None:
            vitals["shards"] = len(renewer.held())
        return vitals
