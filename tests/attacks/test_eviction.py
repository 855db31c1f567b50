"""Spot instances are taken away all day, after a few seconds' notice: that counts against nothing."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from contract.jobs.commits import read_commit
from deploy.local.supervisor import Service
from tests.mill import Mill, check_complete
from tests.sick_mill import many
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
ROUNDS = 3  # of these a shard was cut in two, when each counted like a death
IMAGES = 96
"""A shard of so many takes a slow worker ten seconds and more: it does not end before the worker is taken away."""


def patient(worker: Service) -> Service:
    """Leases that last while a busy machine lets the worker stand still; the test ends them."""
    return replace(worker, env={**worker.env, "IMAGEMILL_LEASE_SECONDS": "60"})


def modes(mill: Mill, job: str) -> set[str]:
    """How the leased shards of a job run, as the ledger has it."""
    ledger = mill.client.backend.ledger
    return {str(lease).split(" ")[4] for lease in ledger.redis.hvals(ledger.keys.job(job)[2])}


def lapse(mill: Mill, job: str) -> None:
    """Let the leases of a worker that is gone lapse now, as time would."""
    ledger = mill.client.backend.ledger
    key, (seconds, micros) = ledger.keys.job(job)[2], ledger.redis.time()
    for shard, lease in ledger.hash(key).items():
        token, _, *rest = lease.split(" ")
        ledger.redis.hset(key, shard, " ".join([token, f"{seconds + micros / 1e6 - 0.002:.3f}", *rest]))


def test_evictions_neither_cut_a_shard_nor_raise_a_suspicion(
    tmp_path: Path, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.2))
    folder, cache = many(tmp_path / "photos", photos, IMAGES), tmp_path / "cache"
    cache.mkdir()
    (cache / "sick").write_text("slow")
    stack = Mill(tmp_path, workers=1, app="tests.sick", altered=patient, cache_dir=cache, reconcile_seconds=0.5)
    with stack.running() as mill:
        job = mill.client.classify(folder, model=MODEL, shard_size=IMAGES).id

        # Given a worker that is taken away again and again in the middle of a shard, if it was told before,
        for _ in range(ROUNDS):
            wait_until(
                lambda: modes(mill, job) == {"shared"}, 60, "the shard to begin, beside others if there were any"
            )
            pid = mill.supervisor.pid("worker-0")
            mill.kill("worker-0", signal.SIGTERM)
            wait_until(lambda: modes(mill, job) == {"notice"}, 10, "the worker to give notice")
            mill.kill("worker-0")
            wait_until(lambda: mill.supervisor.pid("worker-0") not in (None, pid), 30, "the next worker")  # noqa: B023
            lapse(mill, job)

        # I expect every image to have its label, and no shard to be a suspect, nor to be cut.
        (cache / "sick").unlink()
        status = mill.finished(job)
        assert (status.state, status.errors) == ("succeeded", 0)
        check_complete(mill.client, job, [f"{n:04d}.jpg" for n in range(IMAGES)])
        assert f"Shard 0 of {job} begins, alone" not in mill.log("worker-0")
        assert read_commit(mill.client.backend.store, job, 0).split is None
