"""A controller whose clock is a key in Redis, so that a test says what time it is."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import worker.tasks.control as tasks
from worker.app import app, process, settings
from worker.control.reconcile import tick

TIME = f"{settings.namespace}:test:time"


def _now() -> datetime:
    """The time that the test has set; long ago where it has set none."""
    ledger: Any = process.backend.ledger
    return datetime.fromtimestamp(float(ledger.redis.get(TIME) or 0), UTC)


tasks.run_tick = partial(tick, now=_now)  # type: ignore[attr-defined]

__all__ = ["app"]
