"""A process of many workers: each has a name, leases, heartbeats and connections of its own, and an engine that sleeps.

They are made of the parts that a real worker is made of, all but Celery's loop, of which a process can have one: here a
thread a slot takes a ticket whenever it is free. Run it as `python -m tests.fleet.virtual --name fleet-0
--workers 100`, with the addresses of the servers in the environment; it says `ready`, works until its standard
input is closed, and then says what it was given, and when.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.connection import Connection
from kombu.entity import Queue
from kombu.message import Message
from kombu.messaging import Consumer

from contract.backend.broker import make_app
from contract.backend.dispatch import Grant, next_shard
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.errors import RedisUnavailable
from contract.jobs.lifecycle import Backend
from contract.jobs.numerics import Capabilities
from contract.keys.queues import QUEUE_CLASSIFY
from contract.settings import Settings
from tests.fleet import sleeper
from worker.execution.capabilities import of_this_process
from worker.execution.resources import Resources
from worker.process import serve
from worker.process.heartbeat import BEAT_SECONDS, Heartbeat
from worker.process.leaving import Leaving
from worker.process.self_test import SelfTest

_LOOK_SECONDS = 60.0
"""How often a worker that waits for a ticket looks for messages that nobody acknowledged, as Celery's loop does."""


class Granted:
    """What the workers of this process were given: job, shard, since when the slot was free, when it was given."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, float, float]] = []
        self._thread = threading.local()
        self._ask = next_shard
        serve.next_shard = self._next  # type: ignore[attr-defined]

    def waits_since(self, at: float) -> None:
        """Note since when the slot of this thread has been free."""
        self._thread.free_at = at

    def _next(self, *args: Any, **options: Any) -> Grant | None:
        grant = self._ask(*args, **options)
        if grant is not None:
            self.rows.append((grant.job, grant.shard, self._thread.free_at, time.monotonic()))
        return grant


class VirtualWorker:
    """One worker with so many slots."""

    def __init__(self, settings: Settings, name: str, slots: int, store: ObjectStore, granted: Granted) -> None:
        self._app = make_app(settings)
        self._app.conf.broker_transport_options["client_name"] = name  # so that it shares none of its connections
        backend = Backend(store, Ledger(settings, patience=30), Queues(self._app))
        resources = self.resources = Resources(backend, settings, name)
        resources.slots, resources.queues = slots, frozenset({QUEUE_CLASSIFY})
        resources._made[of_this_process] = Capabilities(device="cpu", precisions=("fp32",))
        leaving = Leaving(resources)
        self._messages = serve.Messages(resources, SelfTest(resources), leaving)
        self._granted, self._slots = granted, slots
        self.heartbeat = Heartbeat(resources, leaving, [QUEUE_CLASSIFY])
        self._reading = threading.Lock()
        self._taken: list[Message] = []

    def serve(self, over: threading.Event) -> None:
        """Start a thread for each slot."""
        connection = self._app.connection_for_read()
        queue = Queue(QUEUE_CLASSIFY, self._app.amqp.queues[QUEUE_CLASSIFY].exchange, routing_key=QUEUE_CLASSIFY)
        consumer = Consumer(connection, [queue], on_message=self._taken.append)
        consumer.qos(prefetch_count=self._slots)
        consumer.consume()
        for _ in range(self._slots):
            threading.Thread(target=self._run, args=(connection, over), daemon=True).start()

    def _run(self, connection: Connection, over: threading.Event) -> None:
        """Take a ticket and run what it brings, over and over."""
        while not over.is_set():
            self._granted.waits_since(time.monotonic())
            ticket = self._next(connection)
            try:
                self._messages.run(QUEUE_CLASSIFY)
            finally:
                ticket.ack()

    def _next(self, connection: Connection) -> Message:
        with self._reading:
            while not self._taken:
                with suppress(TimeoutError, Empty, OSError):
                    connection.drain_events(timeout=_LOOK_SECONDS)
            return self._taken.pop()


def beat(workers: list[VirtualWorker], over: threading.Event) -> None:
    """Send the heartbeats of all workers, evenly over the time between two of one."""
    while True:
        for worker in workers:
            with suppress(RedisUnavailable):
                worker.heartbeat.beat()
            if over.wait(BEAT_SECONDS / len(workers)):
                return


def main(name: str, count: int, slots: int) -> None:
    logging.basicConfig(level=logging.WARNING)
    settings = Settings()
    serve.load = lambda path: sleeper.make_work  # type: ignore[attr-defined]  # whatever the kind, it sleeps
    store, granted, over = ObjectStore(settings, patience=60), Granted(), threading.Event()
    workers = [VirtualWorker(settings, f"{name}-{n:03d}@fleet", slots, store, granted) for n in range(count)]
    for worker in workers:
        worker.serve(over)
    threading.Thread(target=beat, args=(workers, over), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
    print(json.dumps({"granted": granted.rows, "cpu_seconds": time.process_time()}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--slots", type=int, default=1)
    told = parser.parse_args()
    main(told.name, told.workers, told.slots)
