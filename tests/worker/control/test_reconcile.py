"""The tick, over several jobs."""

from __future__ import annotations

from typing import Any

import pytest

from contract import keys
from contract.backend.dispatch import waiting
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from tests.worker.conftest import Jobs
from worker.control.reconcile import tick


def test_a_job_of_a_newer_version_keeps_no_other_from_going_on(
    backend: Backend, settings: Settings, job: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    # Given two jobs whose tickets were lost, of which the first is of a kind that this controller does not know,
    for id in ("a-newer", "b-known"):
        job(b"\x01", b"\x02", id=id)
    redis: Any = backend.ledger.redis
    redis.hset(backend.ledger.keys.job("a-newer")[0], "kind", "count")
    redis.delete(*(f"{backend.ledger.keys.broker_prefix}{queue}" for queue in keys.QUEUES))

    # I expect a tick to replace them, and to say of the first what it waits for.
    tick(backend, settings)
    assert waiting(backend.ledger, [keys.QUEUE_CLASSIFY]) == {"classify": 2}
    assert "a-newer waits for a controller of its version: There is no job kind 'count'" in caplog.text
