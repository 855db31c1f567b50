"""`imagemill.plan`, `imagemill.finalize` and `imagemill.tick`: the controller's three tasks."""

from __future__ import annotations

from contract import keys
from worker.app import app, process
from worker.control.finalize import finalize as run_finalize
from worker.control.plan import plan as run_plan
from worker.control.reconcile import tick as run_tick


@app.task(name=keys.TASK_PLAN)  # type: ignore[untyped-decorator]
def plan(job: str) -> None:
    """Cut a job's source into shards."""
    run_plan(process.backend, job, process.settings.lease_seconds)


@app.task(name=keys.TASK_FINALIZE)  # type: ignore[untyped-decorator]
def finalize(job: str) -> None:
    """End a job whose shards are done."""
    run_finalize(process.backend, job, process.settings.lease_seconds)


@app.task(name=keys.TASK_TICK)  # type: ignore[untyped-decorator]
def tick() -> None:
    """Fire the schedules that are due, and send again what was lost."""
    run_tick(process.backend, process.settings)
