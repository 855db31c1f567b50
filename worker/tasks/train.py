"""`imagemill.train`: train a model."""

from __future__ import annotations

from contract import keys
from worker.app import app, process


@app.task(name=keys.TASK_TRAIN)  # type: ignore[untyped-decorator]
def train(job: str, shard: int) -> None:
    """Train a model and publish it."""
    process.run("train", job, shard)
