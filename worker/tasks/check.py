"""`imagemill.check`: run a model that was pushed, and publish it."""

from __future__ import annotations

from contract import keys
from worker.app import app, process


@app.task(name=keys.TASK_CHECK)  # type: ignore[untyped-decorator]
def check(name: str, version: int) -> None:
    """Admit the model `name@version`, or write down why not."""
    # Late, for the controller imports every task and no engine.
    try:
        from worker.models.check import admit
    except ImportError as error:
        process.unfit(error)  # the producer, which waits, asks again
        return
    admit(process.backend, name, version, process.settings.cache_dir)
