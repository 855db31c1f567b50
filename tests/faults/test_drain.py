"""A worker that is told to go ends in its grace with code 0, whatever it does and whoever is away; nothing counts."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.data import image_index
from contract.jobs.lifecycle import read_images
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from contract.models.registry import Registry
from tests.mill import Mill, check_complete
from tests.paced_mill import PacedMill
from tests.sick_mill import many, sick_mill
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
GRACE = 8.0
IMAGES = 64
RECIPE = ["epochs=15", "variant=classic", "batch_size=32", "precision=fp32", "size=16"]


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacedMill]:
    """Two workers whose runtime is as slow as it is told to be."""
    # A lease that lapses on a busy machine counts an attempt, which no test here expects.
    quick = {"batch_size": 4, "grace_seconds": GRACE, "checkpoint_seconds": 0.5, "lease_seconds": 6.0}
    with sick_mill(tmp_path_factory.mktemp("mill"), **quick) as made:
        yield made


@pytest.fixture
def slow(mill: Mill) -> Iterator[Path]:
    """Makes each batch take a second longer until the file is removed."""
    wait_until(mill.ready, 60, "the workers")
    sick = mill.settings.cache_dir / "sick"
    sick.write_text("slow")
    yield sick
    sick.unlink(missing_ok=True)


@pytest.fixture
def photos_of(tmp_path: Path, photos: dict[str, Path]) -> Path:
    return many(tmp_path / "photos", photos, IMAGES)


def holder(mill: Mill, job: str) -> str:
    """The worker that computes a shard of a job, once there is one."""

    def found() -> str:
        leases = mill.client.backend.ledger.redis.hvals(mill.client.backend.ledger.keys.job(job)[2])
        held = [re.match(r"(worker-\d)@\S+ .* (?:shared|alone) \S+$", str(lease)) for lease in leases]
        return next((match[1] for match in held if match), "")

    return wait_until(found, 60, f"a worker to begin a shard of {job}")


def told_to_go(mill: Mill, worker: str, *signals: signal.Signals) -> float:
    """Send a worker signals, wait until it ends, and return the seconds that it took; its exit code must be 0.

    Those may be more than its grace by as long as the test or the worker stands still; what `leaving` does in time is
    in its log.
    """
    pid, began = mill.supervisor.pid(worker), time.monotonic()
    for sig in signals or (signal.SIGTERM,):
        mill.kill(worker, sig)
        threading.Event().wait(0.2)  # or the system makes one of two signals
    wait_until(lambda: mill.supervisor.pid(worker) not in (None, pid), 2 * GRACE, f"{worker} to end")
    took = time.monotonic() - began
    assert mill.supervisor.exit_status(worker) == 0
    return took


def untroubled(mill: Mill, job: str) -> None:
    """Nothing has gone wrong with any shard of the job, as the ledger has it and as workers have said."""
    assert mill.client.backend.ledger.redis.hgetall(mill.client.backend.ledger.keys.job(job)[3]) == {}
    attempts = [n for name in mill.workers for n in re.findall(rf"of {job} begins.*attempt (\d+)", mill.log(name))]
    assert set(attempts) == {"1"}
    assert not any(f"of {job} begins, alone" in mill.log(name) for name in mill.workers)


def classify(mill: Mill, folder: Path, **more: Any) -> str:
    """Label the photos in one shard, which takes longer than the grace as long as the workers are slow."""
    return mill.client.classify(folder, model=MODEL, shard_size=IMAGES, **more).id


def labelled(mill: Mill, job: str) -> Status:
    mill.finished(job)
    status = check_complete(mill.client, job, [f"{n:04d}.jpg" for n in range(IMAGES)])
    assert (status.state, status.errors) == ("succeeded", 0)
    return status


def test_a_shard_that_outlasts_the_grace_is_handed_back(mill: Mill, photos_of: Path, slow: Path) -> None:
    # Given a worker in the middle of a shard that it cannot end in time, if it gets SIGTERM twice,
    job = classify(mill, photos_of)
    worker = holder(mill, job)
    took = told_to_go(mill, worker, signal.SIGTERM, signal.SIGTERM)

    # I expect it to use the grace and not all of it, and the shard to run elsewhere as if for the first time.
    assert took > GRACE / 2 - 1
    slow.unlink()
    labelled(mill, job)
    untroubled(mill, job)
    assert f"This worker is leaving; another runs shard 0 of {job}" in mill.log(worker)


@pytest.mark.parametrize("signals", [(signal.SIGQUIT,), (signal.SIGINT, signal.SIGINT)], ids=["quit", "twice"])
def test_a_worker_in_a_hurry_hands_back_at_once(
    mill: Mill, photos_of: Path, slow: Path, signals: tuple[signal.Signals, ...]
) -> None:
    job = classify(mill, photos_of)
    worker = holder(mill, job)
    told_to_go(mill, worker, *signals)
    slow.unlink()
    labelled(mill, job)
    untroubled(mill, job)


def test_a_worker_is_drained_from_elsewhere(mill: Mill, photos_of: Path, slow: Path) -> None:
    # Given a worker in the middle of a shard, if a producer asks it to drain by the beginning of its name,
    job = classify(mill, photos_of)
    worker = holder(mill, job)
    pid = mill.supervisor.pid(worker)
    (name,) = mill.client.drain_workers(f"{worker}@")
    assert name.startswith(f"{worker}@")

    # I expect it to say that it drains, to leave with code 0, and the process after it to stay.
    wait_until(lambda: any(w.draining for w in mill.client.fleet().workers if w.name == name), 10, "it to say so")
    wait_until(lambda: mill.supervisor.pid(worker) not in (None, pid), 2 * GRACE, f"{worker} to end")
    assert mill.supervisor.exit_status(worker) == 0
    after = mill.supervisor.pid(worker)
    slow.unlink()
    labelled(mill, job)
    untroubled(mill, job)
    wait_until(mill.ready, 60, "the workers")
    assert mill.supervisor.pid(worker) == after


def test_a_training_goes_on_elsewhere(mill: PacedMill, crops: Path) -> None:
    wait_until(mill.ready, 60, "the workers")
    mill.slow(0.5)
    job = mill.client.train("cnn", crops, name="drained", settings=RECIPE, job="drained").id
    store, keys = mill.client.backend.store, JobKeys(job)

    def checkpoints() -> list[str]:
        return sorted(entry.key for entry in store.list(keys.checkpoint_prefix))

    # Given a worker that has learnt something, and stored it, if it is told to go,
    first = wait_until(checkpoints, 60, "a first checkpoint")[0]
    told_to_go(mill, holder(mill, job))

    # I expect another attempt to go on from a checkpoint, not from the beginning.
    assert mill.finished(job).state == "succeeded"
    logs = "".join(mill.log(name) for name in mill.workers)
    resumed = re.findall(rf"{job} goes on from (\S+)", logs)
    assert resumed and min(resumed) >= first > keys.checkpoint(0)
    assert Registry(store).get("drained").weights.sha256
    untroubled(mill, job)


def test_a_generation_goes_on_elsewhere(mill: Mill) -> None:
    wait_until(mill.ready, 60, "the workers")
    job = mill.client.generate("fashion-gan", count=12_000, shard_size=2048).id
    worker = holder(mill, job)

    told_to_go(mill, worker)

    status = mill.finished(job)
    assert (status.state, status.done) == ("succeeded", 12_000)
    store = mill.client.backend.store
    tables = [table for _, table in image_index.shards(store, read_images(store, job))]
    keys = [key for table in tables for key in table.column("key").to_pylist()]
    assert len(keys) == len(set(keys)) == 12_000
    untroubled(mill, job)


def test_a_self_test_that_hangs_does_not_keep_a_worker(mill: Mill, slow: Path) -> None:
    # Given a worker that has just been started, whose first self-test does not end,
    slow.write_text("hangs")
    told_to_go(mill, "worker-0")
    wait_until(lambda: (mill.settings.cache_dir / "hangs").exists(), 60, "the self-test to begin")

    # if it is told to go, I expect it to end in time nevertheless.
    ended = mill.log("worker-0").count("Ending with code 0, although something hangs")
    told_to_go(mill, "worker-0")
    assert mill.log("worker-0").count("Ending with code 0, although something hangs") == ended + 1
    slow.unlink()
    (mill.settings.cache_dir / "hangs").unlink()


@pytest.mark.parametrize("service", ["redis", "s3"])
def test_a_server_that_is_away_keeps_no_worker(mill: Mill, photos_of: Path, slow: Path, service: str) -> None:
    # Given a worker in the middle of a shard, if it is told to go while a server is away,
    job = classify(mill, photos_of)
    worker = holder(mill, job)
    mill.supervisor.stop_service(service)
    try:
        told_to_go(mill, worker)
    finally:
        mill.supervisor.start_service(service)

    # I expect it to end in time, and nothing to count against the shard.
    slow.unlink()
    labelled(mill, job)
    untroubled(mill, job)
