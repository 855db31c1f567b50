"""The probes of a worker whose runtime hangs, while Redis is away: they tell a standstill from an outage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_observed import address, ask
from tests.mill import Mill
from tests.synthetic import colour
from tests.waiting import wait_until

STALL_SECONDS = 15.0


@pytest.fixture
def mill(tmp_path: Path) -> Iterator[Mill]:
    """One worker, whose runtime does as `orders` says."""
    (tmp_path / "cache").mkdir()
    whole = Mill(
        tmp_path,
        workers=1,
        app="tests.sick",
        metrics_port="20000-20999",
        cache_dir=tmp_path / "cache",
        stall_seconds=STALL_SECONDS,
    )
    with whole.running():
        yield whole


def test_a_worker_that_hangs_is_dead_and_one_without_redis_is_not(mill: Mill, tmp_path: Path) -> None:
    # Given a worker whose runtime hangs in a batch,
    worker, controller = address(mill, "worker"), address(mill, "controller")
    assert ask(worker, "/livez") == (200, "ok\n")
    cache, photos = mill.settings.cache_dir, tmp_path / "photos"
    (cache / "sick").write_text("hangs")
    photos.mkdir()
    for n in range(8):
        colour(n, n).save(photos / f"{n}.png")
    job = mill.client.classify(photos, model="efficientnet-lite0").id
    wait_until(lambda: (cache / "hangs").exists(), 60, "a batch to hang")
    hanging = mill.supervisor.pid("worker-0")

    # if Redis stands still too, so that the worker's own watchdog waits for it,
    mill.pause("redis")
    seen = []

    def dead() -> bool:
        seen.append(ask(worker, "/livez"))
        assert ask(controller, "/livez") == (200, "ok\n"), "it does nothing but wait for Redis"
        return seen[-1][0] != 200

    # I expect the probe to say in the end that a shard stands still, and not to blame Redis for it,
    wait_until(dead, 60, "the probe to fail")
    status, said = seen[-1]
    assert status == 503
    assert said.startswith("shards: one has made no progress for ") and said.count("\n") == 1
    assert set(seen[:-1]) <= {(200, "ok\n")}

    # and once Redis answers, the worker to have left, the next one to do the work, and to live.
    (cache / "sick").unlink()
    mill.go_on("redis")
    wait_until(lambda: mill.supervisor.pid("worker-0") not in (None, hanging), 60, "the worker to be started again")
    assert mill.finished(job).ok == 8
    wait_until(lambda: ask(address(mill, "worker"), "/livez") == (200, "ok\n"), 30, "a worker that lives")
