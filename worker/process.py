"""What one worker process holds: connections, leases, models; its heartbeat and its watchdog.

The controller takes `house` and nothing more, so torch is never imported there.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING

from celery import Celery

from contract.broker import Queues
from contract.errors import ImagemillError, ServiceUnavailable
from contract.ledger import Ledger
from contract.lifecycle import House
from contract.objects import ObjectStore
from contract.settings import Settings

if TYPE_CHECKING:
    from worker.shards import ShardRunner

log = logging.getLogger(__name__)

EXIT_STALLED = 70
_BEAT_SECONDS = 2.0
_BEAT_TTL = 15.0


class Process:
    """Built once a process, each part when it is first needed."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.settings = settings
        self._app = app
        self._lock = threading.Lock()
        self._runner: ShardRunner | None = None
        self._stop = threading.Event()
        self._name = f"worker@{socket.gethostname()}-{os.getpid()}"
        self._queues: list[str] = []

    @cached_property
    def house(self) -> House:
        settings = self.settings
        return House(
            ObjectStore(settings, patience=settings.store_patience_seconds),
            Ledger(settings, patience=30.0),
            Queues(self._app),
        )

    @property
    def runner(self) -> ShardRunner:
        """Runs shards; imports the engine."""
        with self._lock:
            if self._runner is None:
                self._runner = self._make_runner()
            return self._runner

    def start(self, name: str, queues: list[str]) -> None:
        """Begin to be seen, and warm up where shards are to be run."""
        self._name, self._queues = name, queues
        threading.Thread(target=self._live, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        try:
            self.house.ledger.leave(self._name)
        except ServiceUnavailable:
            log.info("Redis is away; the heartbeat ends by itself")
        if self._runner is not None:
            self._runner.keeper.close()
            self._runner.fetcher.close()
            self._runner.models.close()

    def warm_up(self) -> None:
        """Publish the built-in model where it is missing, and load it, so that the first shard need not wait."""
        from contract.models import Registry
        from worker.zoo import builtin

        self.house.store.ensure_bucket()
        registry = Registry(self.house.store)
        if not registry.exists(builtin.NAME, builtin.VERSION):
            registry.publish(*builtin.efficientnet_lite0())
        with self.runner.models.use(f"{builtin.NAME}@{builtin.VERSION}", "auto"):
            pass

    def _make_runner(self) -> ShardRunner:
        from worker.fetch import Fetcher
        from worker.gate import Gate
        from worker.leases import Keeper
        from worker.models import Models
        from worker.shards import ShardRunner

        settings = self.settings
        return ShardRunner(
            name=self._name,
            house=self.house,
            keeper=Keeper(self.house.ledger, settings.lease_seconds),
            fetcher=Fetcher(self._image_store(), settings.max_image_bytes),
            models=Models(self.house.store, settings),
            gate=Gate(),
            max_attempts=settings.max_attempts,
        )

    def _image_store(self) -> ObjectStore:
        from worker.fastget import FastGet

        return ObjectStore(
            self.settings, patience=self.settings.store_patience_seconds, fast_get=FastGet(self.settings)
        )

    def _live(self) -> None:
        if "classify" in self._queues:
            try:
                self.warm_up()
            except ImagemillError as error:
                # A shard will meet the same error and report it where the user looks.
                log.error("The built-in model could not be loaded: %s", error)
        started = time.time()
        while True:
            try:
                self.house.ledger.beat(self._name, _BEAT_TTL, started_at=f"{started:.3f}", **self._vitals())
            except ServiceUnavailable as error:
                log.warning("No heartbeat: %s", error)
            self._watch()
            if self._stop.wait(_BEAT_SECONDS):
                return

    def _vitals(self) -> dict[str, str | int]:
        vitals: dict[str, str | int] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "queues": ",".join(self._queues),
        }
        if self._runner is not None:
            runtimes = self._runner.models.runtimes()
            vitals["models"] = ",".join(runtimes)
            vitals["device"] = ",".join(sorted({r.device for r in runtimes.values()}))
            vitals["runtime"] = ",".join(sorted({f"{r.name}/{r.precision}" for r in runtimes.values()}))
            vitals["shards"] = len(self._runner.keeper.held())
        return vitals

    def _watch(self) -> None:
        """Leave when a shard has not moved for too long: whoever started this process starts it again."""
        if self._runner is None:
            return
        for lease in self._runner.keeper.held():
            idle = time.monotonic() - (lease.progress_at or time.monotonic())
            if idle > self.settings.stall_seconds:
                log.critical("Shard %d of %s has not moved for %.0f s; leaving", lease.shard, lease.job, idle)
                os._exit(EXIT_STALLED)
