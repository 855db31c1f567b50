"""`imagemill.generate`, `imagemill.conclude` and `imagemill.verify`: run a shard, end the job, make images again."""

from __future__ import annotations

from contract import keys
from worker.app import app, process


@app.task(name=keys.TASK_GENERATE)  # type: ignore[untyped-decorator]
def generate(job: str, shard: int) -> None:
    """Generate the images of a shard and commit them."""
    process.run("generate", job, shard)


@app.task(name=keys.TASK_CONCLUDE)  # type: ignore[untyped-decorator]
def conclude(job: str) -> None:
    """Choose from what was generated, and end the job."""
    try:
        concluder = process.concluder
    except ImportError as error:
        process.unfit(error)  # the reconciler sends it again, to a worker that can
        return
    concluder.run(job)


@app.task(name=keys.TASK_VERIFY)  # type: ignore[untyped-decorator]
def verify(job: str, shard: int) -> None:
    """Generate images of a job again, and compare."""
    process.run("verify", job, shard)
