"""`imagemill.evaluate`: judge a model."""

from __future__ import annotations

from contract import keys
from worker.app import app, process


@app.task(name=keys.TASK_EVALUATE)  # type: ignore[untyped-decorator]
def evaluate(job: str, shard: int) -> None:
    """Judge a model by labelled images."""
    process.run("evaluate", job, shard)
