"""`imagemill.plan`, `imagemill.finalize` and `imagemill.tick`: the controller's three tasks."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from contract.errors import InvalidInput, ServiceUnavailable
from contract.fleet.snapshot import Fleet
from contract.instruments import WORKERS_WANTED
from contract.keys.queues import QUEUE_CONTROL, TASK_FINALIZE, TASK_PLAN, TASK_TICK
from contract.telemetry.routes import Answer, as_json, text
from worker.app import app, process
from worker.control.finalizers import Finalizers, make_finalizers
from worker.control.planners import Planners, make_planners
from worker.control.reconcile import tick as run_tick
from worker.control.scale import Scale
from worker.control.watching.events import PATH, EventsInbox
from worker.control.watching.keeper import Keeper, make_keeper
from worker.control.webhooks.courier import Courier, make_courier


def planners() -> Planners:
    """Return the planners of this process."""
    return process.resources.once(make_planners)


def finalizers() -> Finalizers:
    """Return the finalizers of this process."""
    return process.resources.once(make_finalizers)


def keeper() -> Keeper:
    """Return the watches of this process."""
    return process.resources.once(make_keeper)


def courier() -> Courier:
    """Return the webhooks of this process."""
    return process.resources.once(make_courier)


@app.task(name=TASK_PLAN)  # type: ignore[untyped-decorator]
def plan(job: str) -> None:
    """Have a job's source cut into shards, in a process of its own; the reconciler asks again if this one is lost."""
    planners().plan(job)


@app.task(name=TASK_FINALIZE)  # type: ignore[untyped-decorator]
def finalize(job: str) -> None:
    """Have a job ended whose shards are done, beside the tasks; the reconciler asks again if this process is lost."""
    finalizers().finalize(job)


@app.task(name=TASK_TICK)  # type: ignore[untyped-decorator]
def tick() -> None:
    """Fire the schedules that are due, and send again what was lost."""
    run_tick(process.backend, process.settings)


def _show_scale() -> None:
    """Answer `/scale/<pool>`, and show what each pool should have beside what it has."""
    scale, observed = Scale(process.backend.ledger, process.settings), process.observed

    def page(pool: str) -> Answer:
        try:
            return as_json(scale.answer(pool))
        except InvalidInput as error:
            return text(404, str(error))
        except ServiceUnavailable as error:
            return text(503, str(error))

    def show(fleet: Fleet) -> None:
        for pool, workers in scale.wanted(fleet).items():
            WORKERS_WANTED.set(workers, pool)

    observed.routes.add_named("/scale/", page)
    if observed.fleet is not None:
        observed.fleet.also(show)


def _take_events() -> None:
    """Take what object stores announce at `/v1/events`."""
    inbox = EventsInbox(process.settings, process.backend.store, keeper().hints, keeper().watches)
    process.observed.routes.add_inbox(PATH, inbox.inbox)


def _ready(sender: Any, **_: Any) -> None:
    if QUEUE_CONTROL in (str(queue) for queue in sender.app.amqp.queues.consume_from):
        planners().warm_up()
        _show_scale()
        _take_events()
        keeper().begin(str(sender.hostname))
        courier().begin()
    process.observed.routes.starting = False


def _shutting_down(**_: Any) -> None:
    planners().leave()
    finalizers().leave()
    keeper().leave()
    courier().leave()


def _shutdown(**_: Any) -> None:
    keeper().close()
    courier().close()
    planners().close()


worker_ready.connect(_ready)
worker_shutting_down.connect(_shutting_down)
worker_shutdown.connect(_shutdown)
