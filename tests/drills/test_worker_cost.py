"""What a worker costs Redis: at most five connections however busy it is, and at most twelve commands a second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fleet.commands import Cost, Meter, sent
from tests.fleet.sleeper import SECONDS
from tests.fleet.sleeping_job import begin
from tests.mill import Mill
from tests.waiting import wait_until

JOB, WORKERS, SHARDS, SHARD_SECONDS, SPAN = "asleep", 2, 200, 5.0, 10.0


def test_a_worker_costs_little(tmp_path: Path, figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given workers whose engine sleeps, alone with Redis but for the one who counts,
    monkeypatch.setenv(SECONDS, str(SHARD_SECONDS))
    mill = Mill(tmp_path, WORKERS, app="tests.fleet.sleeper", lease_seconds=30.0)
    with mill.supervisor:
        mill.supervisor.start("redis", "redis-online", "s3")
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
        before = mill.client.status(JOB).shards.done
        commands, inner, took = sent(backend.ledger.redis, SPAN)
        done = mill.client.status(JOB).shards.done - before
        mill.client.close()
    worker_seconds = took * WORKERS
    a_shard = Counter({name: round(count / done, 1) for name, count in commands.items()})
    figures(
        idle_connections=idle.connections / WORKERS,
        busy_connections=busy.connections / WORKERS,
        idle_commands_a_second=round(idle.commands_per_second / WORKERS, 1),
        busy_commands_a_second=round(busy.commands_per_second / WORKERS, 1),
        sent_a_second=round(commands.total() / worker_seconds, 1),
        in_scripts_a_second=round(inner / worker_seconds, 1),
        shards_a_worker_second=round(done / worker_seconds, 2),
        sent_a_shard=dict(a_shard.most_common(12)),
    )
    # I expect few connections; the test itself may have three beside the one that counts.
    assert idle.connections <= 5 * WORKERS + 3
    assert busy.connections <= 5 * WORKERS + 3
    # and few commands, a pipeline of four counted as four.
    assert commands.total() <= 12 * worker_seconds
