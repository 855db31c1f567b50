"""What a worker costs Redis: at most five connections, however busy it is; the commands a second are printed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fleet.commands import Cost, Meter
from tests.fleet.sleeper import SECONDS
from tests.fleet.sleeping_job import begin
from tests.mill import Mill
from tests.waiting import wait_until

JOB, WORKERS, SHARDS, SPAN = "asleep", 2, 200, 6.0


def test_a_worker_has_five_connections_at_most(
    tmp_path: Path, figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given workers whose engine sleeps, alone with Redis but for the one who counts,
    monkeypatch.setenv(SECONDS, "2")
    mill = Mill(tmp_path, WORKERS, app="tests.fleet.sleeper", lease_seconds=30.0)
    with mill.supervisor:
        mill.supervisor.start("redis", "s3")
        backend = mill.client.backend
        backend.store.ensure_bucket()
        mill.supervisor.start(*mill.workers)
        wait_until(lambda: len(mill.client.workers()) == WORKERS, 60, "the workers")

        def measured() -> Cost:
            meter = Meter(backend.ledger.redis)
            threading.Event().wait(SPAN)
            return meter.read()

        idle = measured()
        # if they work on a job,
        begin(backend, JOB, SHARDS)
        wait_until(lambda: mill.client.status(JOB).shards.done > WORKERS, 60, "shards to be done")
        busy = measured()
        mill.client.close()
    figures(
        idle_connections=idle.connections / WORKERS,
        busy_connections=busy.connections / WORKERS,
        idle_commands_a_second=round(idle.commands_per_second / WORKERS, 1),
        busy_commands_a_second=round(busy.commands_per_second / WORKERS, 1),
        most=busy.most(WORKERS),
    )
    # I expect few connections; the test itself may have three beside the one that counts.
    assert idle.connections <= 5 * WORKERS + 3
    assert busy.connections <= 5 * WORKERS + 3
