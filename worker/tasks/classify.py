"""`imagemill.classify`: run one shard."""

from __future__ import annotations

from contract import keys
from worker.app import app, process


@app.task(name=keys.TASK_CLASSIFY)  # type: ignore[untyped-decorator]
def classify(job: str, shard: int) -> None:
    """Label the images of a shard and commit them."""
    process.run("classify", job, shard)
