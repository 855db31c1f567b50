"""Tests a worker process on known good input before it takes a shard, and again as long as it fails.

A process that fails every test leaves. It knows neither the queue's messages nor the heartbeat.
"""

from __future__ import annotations

import logging
import random
import threading
import time

from contract.errors import WorkerUnfit
from contract.keys.queues import QUEUE_GENERATE, QUEUE_TRAIN
from worker.execution.resources import Resources
from worker.process.heartbeat import RUNS_MODELS

log = logging.getLogger(__name__)

_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between two self-tests of a worker that fails them; after the last one it leaves."""
_START_SECONDS = 120.0
"""How long a shard waits, at most, for the first self-test, which loads a model."""
_LOOK_SECONDS = 0.2


class SelfTest:
    """The self-test of one process, which takes its shards from `queues`."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._tested = threading.Event()
        self._tested.set()  # until `begin`
        self._pauses = list(_PAUSES)
        self._due: float | None = None
        self.queues: list[str] = []

    def begin(self, queues: list[str]) -> None:
        """Have shards wait for the first test; `step` runs it."""
        self.queues, self._due = queues, time.monotonic()
        self._tested.clear()

    @property
    def passed(self) -> bool:
        """Whether the last test passed, and no other is due."""
        return self._tested.is_set() and self._due is None and not self._resources.health.unfit

    def wait(self) -> None:
        """Wait until this process was tested once, or leaves."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._resources.leaving.is_set() and time.monotonic() < deadline:
            if self._tested.wait(_LOOK_SECONDS):
                return

    def step(self) -> None:
        """Test this process if that is due, until it passes; leave if it has failed every test."""
        if self._due is None or time.monotonic() < self._due:
            return
        self._due = None
        health = self._resources.health
        try:
            health.check()
        except WorkerUnfit as error:
            log.critical("%s", error)
            if self._pauses:
                self._due = time.monotonic() + self._pauses.pop(0) * random.uniform(0.75, 1.25)
            else:
                health.leave(health.unfit)
        finally:
            self._tested.set()

    def run(self) -> None:
        """Run known good input through what this process computes with; raise what goes wrong."""
        resources = self._resources
        device = resources.device_made()
        if RUNS_MODELS & set(self.queues):
            from worker.execution.capabilities import of_this_process

            # Where the device that was asked for is away, this raises. A GPU is tested before anything was loaded.
            on_gpu = resources.once(of_this_process).device == "cuda"
            if on_gpu or {QUEUE_TRAIN, QUEUE_GENERATE} & set(self.queues):
                device = resources.device
        if (models := resources.models_made()) is not None:
            from worker.zoo import builtin

            models.check(f"{builtin.NAME}@{builtin.VERSION}")
        if device is not None:
            from worker.engine.canary import check_device

            check_device(device)
