"""`imagemill.generate` and `imagemill.conclude`: run one shard of what is generated, and end the job."""

from __future__ import annotations

from contract import keys
from worker.app import app, process


@app.task(name=keys.TASK_GENERATE)  # type: ignore[untyped-decorator]
def generate(job: str, shard: int) -> None:
    """Generate the images of a shard and commit them."""
    process.generator.run(job, shard)


@app.task(name=keys.TASK_CONCLUDE)  # type: ignore[untyped-decorator]
def conclude(job: str) -> None:
    """Choose from what was generated, and end the job."""
    process.concluder.run(job)
