"""What a worker costs Redis: at most five connections, however busy it is; the commands a second are printed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.data.items import Item, write_manifest
from contract.jobs.lifecycle import submit
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Plan
from contract.keys import JobKeys
from tests.fleet.commands import Cost, Meter
from tests.fleet.sleeper import SECONDS
from tests.mill import Mill
from tests.waiting import wait_until

WORKERS, SHARDS, SPAN = 2, 200, 6.0


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
        spec = Classify(
            id="asleep",
            source=Source(kind="prefix", uri="s3://photos/", label="photos"),
            model="m@1",
            weights_sha256="0" * 64,
            output=f"s3://{backend.store.bucket}/jobs/asleep/out/",
        )
        submit(backend, spec)
        manifest = write_manifest([Item("a.jpg", "s3://photos/a.jpg", size=1)])
        for shard in range(SHARDS):
            backend.store.put(JobKeys(spec.id).manifest(shard), manifest)
        backend.store.put(JobKeys(spec.id).plan, Plan(shards=SHARDS, items=SHARDS, skipped=0).to_json())
        step = backend.ledger.complete(spec.id, shards=SHARDS, items=SHARDS, error_limit=SHARDS, skipped=0)
        backend.follow_up(spec.id, step)
        wait_until(lambda: mill.client.status(spec.id).shards.done > WORKERS, 60, "shards to be done")
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
