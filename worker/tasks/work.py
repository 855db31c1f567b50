"""`imagemill.run`, `imagemill.finish` and `imagemill.check`: the tasks of a worker."""

from __future__ import annotations

from typing import Any

from contract.keys.queues import TASK_CHECK, TASK_FINISH, TASK_RUN
from contract.telemetry import logs
from worker.app import app, process


@app.task(name=TASK_RUN, bind=True)  # type: ignore[untyped-decorator]
def run(self: Any, *_: Any) -> None:
    """Ask for a shard, and run it; earlier versions named one."""
    with logs.scope():
        process.messages.run(self.request.delivery_info["routing_key"])


@app.task(name=TASK_FINISH)  # type: ignore[untyped-decorator]
def finish(job: str) -> None:
    """End a job whose shards are done, or write its page."""
    with logs.scope(job=job):
        process.messages.finish(job)


@app.task(name=TASK_CHECK)  # type: ignore[untyped-decorator]
def check(name: str, version: int) -> None:
    """Run the model `name@version`, which was pushed, and publish it or write down why not."""
    process.messages.check(name, version)
