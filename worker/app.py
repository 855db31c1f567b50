"""The Celery program of workers and controller: `celery -A worker.app worker --queues …`.

It uses threads, one process per device: a model is loaded once, and decoding releases the interpreter lock.
"""

from __future__ import annotations

import atexit
from typing import Any

from celery import bootsteps
from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

from contract import settings as configuration
from contract.backend.broker import make_app
from contract.keys.queues import QUEUE_CONTROL, TASK_TICK
from contract.printable import log_printably
from worker.engine.cores import cores
from worker.engine.memory import bound_heaps, calm_openmp
from worker.process import signals
from worker.process.celery_logs import log_as_json
from worker.process.process import Process

log_printably()
bound_heaps()  # before anything imports Pillow
calm_openmp()  # before anything imports torch, whose threads spin from their first use
settings = configuration.current()
# One shard more than there are cores, so that reading and writing overlap with computing.
_SHARDS = (settings.threads or cores()) + 1
_WAITING_SHARDS = 16
"""Shards beside these that may wait for slow web hosts, which cost a thread and no core."""
app = make_app(settings)
app.conf.update(
    worker_pool="threads",
    # Threads; how many shards are taken is decided by `take` below.
    worker_concurrency=_SHARDS + _WAITING_SHARDS,
    include=["worker.tasks.control", "worker.tasks.work"],
)
process = Process(app, settings)
if settings.log == "json":
    log_as_json(app)
atexit.register(process.leaving.exit)


@worker_init.connect
def _init(sender: Any, **_: Any) -> None:
    # Whatever the command line says: what Celery's workers tell each other costs connections, and nobody listens.
    sender.options.update(without_gossip=True, without_mingle=True, without_heartbeat=True)
    if settings.log == "json":
        sender.quiet = True  # its banner is no JSON
    process.observed.open()


class _Turns(bootsteps.StartStopStep):  # type: ignore[misc]
    """Notes each second that the consumer's loop turns, for `/livez`; registered anew with each connection."""

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        process.observed.turned()
        hub.call_repeatedly(1.0, process.observed.turned)


app.steps["consumer"].add(_Turns)


@worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    queues = sorted(str(q) for q in sender.app.amqp.queues.consume_from)
    controller = sender.controller

    def take(waiting: int) -> None:
        """Take as many shards as can compute, and one more for each that only waits for the web."""
        controller.max_concurrency = min(min(_SHARDS, controller.concurrency) + waiting, controller.concurrency)

    take(0)
    process.resources.take = take
    signals.install(process.leaving)
    process.start(sender.hostname, queues, min(_SHARDS, controller.concurrency))
    if QUEUE_CONTROL in queues:
        # Resend at once what was lost while no controller ran.
        app.send_task(TASK_TICK)


@worker_shutting_down.connect
def _shutting_down(**_: Any) -> None:
    process.leaving.begin()


@worker_shutdown.connect
def _shutdown(sender: Any, **_: Any) -> None:
    process.stop()
    process.leaving.over(sender.exitcode)
