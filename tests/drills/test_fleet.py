"""Hundreds of workers on one Redis: every row once, no lease lost, and those that are killed are made up for."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.backend.ledger import Ledger
from tests.fleet.commands import Meter
from tests.fleet.fleet import Fleet
from tests.fleet.sleeping_job import begin, rows
from tests.mill import Mill
from tests.waiting import wait_until

JOB, ITEMS = "asleep", 4
_LAPSED = re.compile(r"Shards \[([\d, ]+)\] of asleep may run again")


def held(ledger: Ledger, prefix: str = "") -> set[int]:
    """The shards under the leases of workers whose names begin like this."""
    leases = ledger.hash(ledger.keys.job(JOB)[2])
    return {int(shard) for shard, lease in leases.items() if lease.startswith(prefix)}


@pytest.mark.timeout(3600)
def test_a_fleet_of_which_a_tenth_is_killed(tmp_path: Path, long: bool, figures: Callable[..., None]) -> None:
    # Given a fleet in ten processes, and a job that keeps all of its slots busy,
    workers, seconds, each = (100, 20.0, 6) if long else (20, 5.0, 5)
    times: dict[str, Any] = {"lease_seconds": 30.0, "reconcile_seconds": 10.0} if long else {"lease_seconds": 10.0}
    mill = Mill(tmp_path, 0, **times)
    settings = mill.settings
    with mill.running(), Fleet(settings, 10, workers, seconds) as fleet, closing(Ledger(settings)) as ledger:
        shards = fleet.size * each
        wait_until(
            lambda: sum(w.name.startswith("fleet-") for w in mill.client.workers()) == fleet.size, 120, "all heartbeats"
        )
        meter = Meter(ledger.redis)
        keys, began = begin(mill.client.backend, JOB, shards, ITEMS)
        wait_until(lambda: len(held(ledger)) == fleet.size, 120, "all slots to be busy")
        filled = time.monotonic() - began
        meter.read()
        wait_until(lambda: mill.client.status(JOB).shards.done >= 2 * fleet.size, 300, "shards to be done")
        busy = meter.read()
        before = mill.log("controller")
        # if one of them is killed while its workers work,
        gone = fleet.kill()
        killed_at, victims = time.monotonic(), held(ledger, gone)
        wait_until(lambda: not held(ledger, gone), times["lease_seconds"] + settings.reconcile_seconds, "the leases")
        recovered = time.monotonic() - killed_at
        end = mill.finished(JOB, 600)
        fleet.stop()
        lapsed = {int(n) for row in _LAPSED.findall(mill.log("controller")) for n in row.split(",")}
        counted = rows(mill.client.backend.store, JOB)
    # The last shard that was given for the first time: until then there was always one to give.
    firsts = {one.shard: one.at for one in reversed(fleet.given)}
    last = max(firsts.values())
    waits = sorted(one.at - max(one.free_at, began) for one in fleet.given if one.at <= last)
    figures(
        workers=fleet.size,
        shards=shards,
        filled_seconds=round(filled, 1),
        dispatch_p50=round(waits[len(waits) // 2], 3),
        dispatch_p99=round(waits[int(len(waits) * 0.99)], 3),
        dispatch_most=round(waits[-1], 3),
        redis_cores=round(busy.cores, 3),
        connections_a_worker=round(busy.connections / fleet.size, 2),
        commands_a_worker_second=round(busy.commands_per_second / fleet.size, 1),
        fleet_cpu_ms_a_worker_second=round(1000 * fleet.cpu_seconds / (time.monotonic() - began) / fleet.size, 1),
        killed=len(victims),
        recovered_seconds=round(recovered, 1),
    )
    # I expect every row once, no lease to lapse but those of the killed, and no shard to be given twice but theirs.
    assert (end.state, end.ok, end.errors) == ("succeeded", len(keys), 0)
    assert counted == Counter(keys)
    assert not _LAPSED.findall(before)
    assert victims and lapsed == victims
    assert {shard for shard, times in Counter(one.shard for one in fleet.given).items() if times > 1} <= victims
