"""`imagemill.generate`, `imagemill.finalize_images` and `imagemill.verify`: the tasks of jobs that generate."""

from __future__ import annotations

from contract import keys
from worker.app import app, process


@app.task(name=keys.TASK_GENERATE)  # type: ignore[untyped-decorator]
def generate(job: str, shard: int) -> None:
    """Generate the images of a shard and commit them."""
    process.run("generate", job, shard)


@app.task(name=keys.TASK_FINALIZE_IMAGES)  # type: ignore[untyped-decorator]
def finalize_images(job: str) -> None:
    """Choose from what was generated, and end the job."""
    try:
        images_finalizer = process.images_finalizer
    except ImportError as error:
        process.unfit(error)  # the reconciler sends it again, to a worker that can
        return
    images_finalizer.run(job)


@app.task(name=keys.TASK_VERIFY)  # type: ignore[untyped-decorator]
def verify(job: str, shard: int) -> None:
    """Generate images of a job again, and compare."""
    process.run("verify", job, shard)
