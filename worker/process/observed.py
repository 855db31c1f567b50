"""What a worker process shows to the outside: the checks behind its probes, and the figures of its fleet.

Everything here is off without `IMAGEMILL_METRICS_PORT`. It decides nothing; whoever probes does.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contract import instruments
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidSettings, ServiceUnavailable
from contract.keys.bucket import probe_object
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_CONTROL
from contract.telemetry import meters
from contract.telemetry.meters import Role
from contract.telemetry.probes import Probe
from contract.telemetry.prometheus import Metrics
from contract.telemetry.routes import Routes
from contract.telemetry.server import Server, parse_ports
from worker.engine.budget import budget
from worker.execution.resources import Resources
from worker.observe.fleet import FleetWatch
from worker.process.leaving import Leaving
from worker.process.self_test import SelfTest

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
"""Between two looks at the fleet."""
_ASK_SECONDS = 20.0
"""The store is asked something when it has not answered anything for so long."""
_ANSWERED_SECONDS = 60.0
"""A process is not ready when a server has not answered it for so long."""
_AWAY_SECONDS = 10.0
"""Redis is away when it has not answered for so long; heartbeats ask it every few seconds."""
_TURN_SECONDS = 60.0
"""Redis answers for so long, and the consumer of the queue still does not turn: it hangs."""


class Observed:
    """The port of one process, its probes, and a thread that looks at what they need to know.

    `fleet` is what the controller saw last; None in other processes.
    """

    def __init__(self, resources: Resources, self_test: SelfTest, leaving: Leaving) -> None:
        self._resources, self._self_test, self._leaves = resources, self_test, leaving
        self._settings = resources.settings
        self.routes = Routes()
        self.fleet: FleetWatch | None = None
        self._server: Server | None = None
        self._live = Probe({"heartbeat": self._heartbeat, "shards": self._shards, "consumer": self._consumer})
        self._ready = Probe(
            {
                "process": self._serves,
                "leaving": self._leaving,
                "serving": self._loading,
                "redis": lambda: self._answers("redis"),
                "store": lambda: self._answers("store"),
            }
        )
        self._queues: list[str] = []
        self._store: ObjectStore | None = None
        self._begun_at = self._beat_at = self._turned_at = time.monotonic()
        self._redis_since: float | None = None
        self._beats = threading.Thread()
        self._asks = False
        self._cold = True
        self._stop = threading.Event()

    @property
    def address(self) -> str:
        """Where the port is, `127.0.0.1:9464`; empty if there is none."""
        return self._server.address if self._server is not None else ""

    def open(self) -> None:
        """Open the port, if there is to be one; a process without it works all the same, and says why it has none."""
        ports = parse_ports(self._settings.metrics_port)
        if not ports:
            return
        self.routes.starting = True
        self.routes.add("/livez", self._live.page)
        self.routes.add("/readyz", self._ready.page)
        server = Server(self.routes, self._settings.metrics_host, ports)
        try:
            log.info("Probes and metrics are at http://%s", server.open())
        except InvalidSettings as error:
            log.error("There are no probes and no metrics: %s", error)
        else:
            self._server = server

    def begin(self, queues: list[str], beats: threading.Thread) -> None:
        """Show figures, now that the process knows its queues and `beats`, the thread of its heartbeat."""
        self._queues, self._beats = queues, beats
        self._beat_at = self._turned_at = time.monotonic()
        if self._server is None:
            return
        roles: list[Role] = ["controller"] if QUEUE_CONTROL in queues else []
        roles += ["worker"] if set(queues) - {QUEUE_CONTROL} else []
        try:
            metrics = Metrics(roles)
        except InvalidSettings as error:
            log.error("There are no metrics: %s", error)
            return
        meters.record_with(metrics)
        if "controller" in roles:
            self.fleet = FleetWatch(self._resources.backend.ledger)
            metrics.before_each_scrape(self.fleet.refresh)
        metrics.before_each_scrape(self._refresh)
        self.routes.add("/metrics", metrics.page)
        role = "both" if len(roles) == 2 else roles[0]
        instruments.BUILD_INFO.set(1, importlib.metadata.version("imagemill"), role, self._settings.pool)
        self._store = ObjectStore(self._settings, patience=0.0)
        threading.Thread(target=self._look, name="observer", daemon=True).start()

    def beat(self) -> None:
        """Note that the heartbeat's thread has made a round."""
        now = self._beat_at = time.monotonic()
        if self._age("redis") > _AWAY_SECONDS:
            self._redis_since = None
        elif self._redis_since is None:
            self._redis_since = now
        if self._cold and not self._serves():
            self._cold = False
            instruments.COLD_START_SECONDS.set(process_age())

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Note that the heartbeat's thread asks Redis in this block, and does nothing else."""
        began, self._asks = time.monotonic(), True
        try:
            yield
        finally:
            self._beat_at, self._asks = time.monotonic(), False
            if self._beat_at - began > _AWAY_SECONDS:
                self._redis_since = None

    def turned(self) -> None:
        """Note that the consumer of the queue has made a round."""
        self._turned_at = time.monotonic()

    def close(self) -> None:
        """Close the port."""
        self._stop.set()
        meters.record_with(None)
        if self._server is not None:
            self._server.close()
        if self._store is not None:
            self._store.close()

    # Alive

    def _heartbeat(self) -> str:
        if not self._queues:
            return ""  # it is still starting
        if not self._beats.is_alive():
            return "its thread has ended"
        if self._asks:
            return ""  # it waits for Redis, which may take minutes if that accepts connections and says nothing
        idle = time.monotonic() - self._beat_at
        return f"no round for {idle:.0f} s" if idle > self._settings.stall_seconds else ""

    def _shards(self) -> str:
        found = self._leaves.stalled()
        return "" if found is None else f"one has made no progress for {found[1]:.0f} s"

    def _consumer(self) -> str:
        if self._redis_since is None or self._age("redis") > _AWAY_SECONDS or self._resources.leaving.is_set():
            return ""  # it waits for Redis, or has been stopped
        idle = time.monotonic() - max(self._turned_at, self._redis_since)
        return f"Redis answers, and it has not asked for {idle:.0f} s" if idle > _TURN_SECONDS else ""

    # Ready

    def _serves(self) -> str:
        if not self._queues:
            return "it is starting"
        if not self._self_test.passed:
            return self._resources.health.unfit or "it is testing itself"
        if QUEUE_CLASSIFY in self._queues:
            models = self._resources.models_made()
            if models is None or not models.runtimes():
                return "no model is loaded"
        return ""

    def _loading(self) -> str:
        return f"{ref} is being loaded" if (ref := self._resources.loading()) else ""

    def _leaving(self) -> str:
        return "it takes nothing new" if self._resources.leaving.is_set() else ""

    def _answers(self, service: str) -> str:
        age = self._age(service)
        return f"no answer for {age:.0f} s" if age > _ANSWERED_SECONDS else ""

    def _age(self, service: str) -> float:
        """Return the seconds since a server last answered this process, or since it began to ask."""
        backend = self._resources.backend
        stores = [backend.store, *([self._store] if self._store is not None else [])]
        answered = [one.answered_at for one in (stores if service == "store" else [backend.ledger])]
        return time.monotonic() - max((at for at in answered if at is not None), default=self._begun_at)

    # What is looked at now and then

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            with suppress(ServiceUnavailable):
                if self.fleet is not None:
                    self.fleet.look()
            if self._age("store") > _ASK_SECONDS and self._store is not None:
                with suppress(ImagemillError):
                    self._store.exists(probe_object("ready"))

    def _refresh(self) -> None:
        """Set the gauges that are read off this process."""
        instruments.LIVE.set(not self._live.reasons())
        instruments.READY.set(not self._ready.reasons())
        for service in ("redis", "store"):
            instruments.ANSWERED_AGE_SECONDS.set(self._age(service), service)
        renewer = self._resources.renewer_made()
        instruments.SHARDS_HELD.set(len(renewer.held()) if renewer is not None else 0)
        memory = budget()
        instruments.IMAGE_MEMORY_BYTES.set(memory.encoded.held + memory.pixels.held)
        instruments.IMAGE_MEMORY_LIMIT_BYTES.set(memory.total)


def process_age() -> float:
    """Return the seconds since this process was started, 0 where the system does not tell."""
    try:
        started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, up - started / os.sysconf("SC_CLK_TCK"))
