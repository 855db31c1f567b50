"""Spot instances are taken away all day, after a few seconds' notice: that counts against nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from contract.jobs.commits import read_commit
from tests.mill import Mill, check_complete
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
ROUNDS = 3  # of these a shard was cut in two, when each counted like a death


def modes(mill: Mill, job: str) -> set[str]:
    """How the leased shards of a job run, as the ledger has it."""
    ledger = mill.client.backend.ledger
    return {str(lease).split(" ")[4] for lease in ledger.redis.hvals(ledger.keys.job(job)[2])}


def test_evictions_neither_cut_a_shard_nor_raise_a_suspicion(
    tmp_path: Path, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.2))
    folder, cache = tmp_path / "photos", tmp_path / "cache"
    folder.mkdir()
    cache.mkdir()
    (cache / "sick").write_text("slow")
    keys = [f"{n:02d}.jpg" for n in range(24)]
    for key, path in zip(keys, photos.values(), strict=False):
        (folder / key).symlink_to(path)
    short: dict[str, Any] = {"lease_seconds": 1.0, "reconcile_seconds": 0.5}
    with Mill(tmp_path, workers=1, app="tests.sick", cache_dir=cache, **short).running() as mill:
        job = mill.client.classify(folder, model=MODEL, shard_size=24).id

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

        # I expect every image to have its label, and no shard to be a suspect, nor to be cut.
        (cache / "sick").unlink()
        status = mill.finished(job)
        assert (status.state, status.errors) == ("succeeded", 0)
        check_complete(mill.client, job, keys)
        assert f"Shard 0 of {job} begins, alone" not in mill.log("worker-0")
        assert read_commit(mill.client.backend.store, job, 0).split is None
