"""What is killed or wiped in the middle of a training: it ends with the weights that it would have had anyway."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.keys.jobs import JobKeys
from contract.models.registry import Registry
from tests.mill import Mill
from tests.paced_mill import PacedMill
from tests.waiting import wait_until

EPOCHS = 8
RECIPE = [f"epochs={EPOCHS}", "variant=classic", "batch_size=32", "precision=fp32", "size=16", "learning_rate=0.02"]
SLOW = 0.5
"""Seconds that it takes longer from one checkpoint to the next, so that no training ends before `finished`."""


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacedMill]:
    """Two workers that write a checkpoint several times a second."""
    data = tmp_path_factory.mktemp("mill")
    # A lease of 2 s may lapse on a busy machine, and the training begin again, though nothing was killed.
    with PacedMill(data, workers=2, checkpoint_seconds=0.1, lease_seconds=5.0).running() as made:
        yield made


def begin(mill: PacedMill, folder: Path, job: str) -> None:
    """A training whose job is named like its model, and which goes on at full speed once it is waited for."""
    mill.slow(SLOW)
    mill.client.train("cnn", folder, name=job, settings=RECIPE, job=job)


def amid(mill: Mill, job: str) -> str:
    """Wait until a training has a checkpoint and is not over; the worker that has it."""
    store = mill.client.backend.store
    wait_until(lambda: list(store.list(JobKeys(job).checkpoint_prefix)), 60, "a checkpoint")
    assert not mill.client.status(job).ended, "it was over before it could be disturbed"
    (worker,) = {name for name in mill.workers if f"Shard 0 of {job} begins" in mill.log(name)}
    return worker


def stopped(mill: Mill, job: str) -> None:
    """Wait until the worker of a canceled job has let go of it."""
    wait_until(lambda: any(f"The job {job} was stopped" in mill.log(n) for n in mill.workers), 30, "the worker to stop")


def weights(mill: Mill, job: str) -> str:
    """The sha256 of what a training published, once it has; every epoch is in its history, once."""
    status = mill.finished(job)
    assert (status.state, status.reason) == ("succeeded", None)
    assert [epoch["epoch"] for epoch in mill.client.history(job)] == list(range(1, EPOCHS + 1))
    assert status.done == status.total
    return Registry(mill.client.backend.store).get(str(status.model)).weights.sha256


@pytest.fixture(scope="module")
def undisturbed(mill: PacedMill, crops: Path) -> str:
    """What comes out where nothing happens."""
    begin(mill, crops, "undisturbed")
    return weights(mill, "undisturbed")


def _kill(mill: Mill, worker: str) -> None:
    mill.kill(worker)


def _terminate(mill: Mill, worker: str) -> None:
    mill.kill(worker, signal.SIGTERM)


def _wipe(mill: Mill, worker: str) -> None:
    mill.client.backend.ledger.redis.flushall()


def _wipe_and_kill(mill: Mill, worker: str) -> None:
    mill.client.backend.ledger.redis.flushall()
    mill.kill(worker)


@pytest.mark.parametrize("fault", [_kill, _terminate, _wipe, _wipe_and_kill])
def test_a_training_that_is_disturbed_ends_with_the_same_weights(
    mill: PacedMill, crops: Path, undisturbed: str, fault: Callable[[Mill, str], None]
) -> None:
    # Given a training that has a checkpoint,
    job = f"after{fault.__name__.replace('_', '-')}"
    wait_until(mill.ready, 30, "the workers")
    begin(mill, crops, job)
    worker = amid(mill, job)

    # if its worker, or Redis, is taken away,
    fault(mill, worker)

    # I expect another to go on, to the same weights, bit for bit.
    assert weights(mill, job) == undisturbed


def test_a_worker_that_is_killed_costs_no_more_than_what_came_after_the_checkpoint(
    mill: PacedMill, crops: Path
) -> None:
    begin(mill, crops, "counted")
    worker = amid(mill, "counted")
    store = mill.client.backend.store
    kept = max(int(re.findall(r"\d+", e.key)[-1]) for e in store.list(JobKeys("counted").checkpoint_prefix))

    mill.kill(worker)

    wait_until(lambda: sum(mill.log(n).count("of counted begins") for n in mill.workers) >= 2, 30, "another to go on")
    wait_until(lambda: mill.client.status("counted").done, 30, "progress")
    assert mill.client.status("counted").done >= kept
    mill.finished("counted")


def test_a_canceled_training_goes_on_from_its_checkpoint(mill: PacedMill, crops: Path, undisturbed: str) -> None:
    begin(mill, crops, "paused")
    amid(mill, "paused")

    assert mill.client.cancel("paused").state == "canceled"
    stopped(mill, "paused")
    mill.client.resume("paused")

    assert weights(mill, "paused") == undisturbed


def test_a_damaged_checkpoint_is_passed_over_and_where_all_are_the_job_says_so(
    mill: PacedMill, crops: Path, undisturbed: str
) -> None:
    # Given a training that was stopped behind two checkpoints,
    begin(mill, crops, "damaged")
    store = mill.client.backend.store
    wait_until(lambda: len(list(store.list(JobKeys("damaged").checkpoint_prefix))) == 2, 60, "two checkpoints")
    mill.client.cancel("damaged")
    stopped(mill, "damaged")
    first, second = sorted(entry.key for entry in store.list(JobKeys("damaged").checkpoint_prefix))
    whole = store.get(first)

    # if both are damaged, I expect a clear end,
    for key in (first, second):
        store.put(key, store.get(key)[:-1000])
    mill.client.resume("damaged")
    assert mill.finished("damaged").reason is not None
    assert "The checkpoint of" in str(mill.client.status("damaged").reason)

    # and if only the newer one is, I expect it to go on from the other.
    store.put(first, whole)
    mill.client.resume("damaged")
    assert weights(mill, "damaged") == undisturbed
