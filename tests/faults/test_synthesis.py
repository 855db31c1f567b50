"""What is killed or wiped in the middle of a synthesis: the same images are accepted, whoever made which candidate."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.data import image_index
from contract.jobs.lifecycle import read_images
from producer import Client
from tests.mill import Mill
from tests.paced_mill import PacedMill
from tests.waiting import wait_until

ASKED: dict[str, Any] = {"gate": "fashion-cnn", "per_class": 30, "min_score": 0.8, "dedup": 0.001, "shard_size": 32}
Accepted = set[tuple[str, str]]


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacedMill]:
    """Three workers."""
    data = tmp_path_factory.mktemp("mill")
    with PacedMill(data, workers=3).running() as made:
        yield made


def begin(mill: Mill, job: str) -> None:
    mill.client.synthesize("fashion-gan", job=job, **ASKED)


def accepted(client: Client, job: str) -> Accepted:
    """Key and sha256 of each image that was accepted; every candidate has one row."""
    tables = [table for _, table in image_index.shards(client.backend.store, read_images(client.backend.store, job))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["key"] for row in rows}) == len(rows), "a candidate has two rows"
    return {(row["key"], row["sha256"]) for row in rows if row["accepted"]}


def finished(mill: Mill, job: str) -> Accepted:
    status = mill.finished(job)
    assert (status.state, status.reason) == ("succeeded", None)
    assert status.done == status.total
    found = accepted(mill.client, job)
    assert len(found) == 10 * ASKED["per_class"]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Accepted:
    """What another stack accepts, which has one worker and batches of another size."""
    with Mill(tmp_path_factory.mktemp("alone"), workers=1, batch_size=7).running() as other:
        begin(other, "alone")
        return finished(other, "alone")


def _kill_all(mill: Mill) -> None:
    for worker in mill.workers:
        mill.kill(worker)


def _terminate_one(mill: Mill) -> None:
    mill.kill(mill.workers[0], signal.SIGTERM)


def _wipe(mill: Mill) -> None:
    mill.client.backend.ledger.redis.flushall()


def _wipe_and_kill(mill: Mill) -> None:
    mill.client.backend.ledger.redis.flushall()
    _kill_all(mill)


@pytest.mark.parametrize("disturb", [_kill_all, _terminate_one, _wipe, _wipe_and_kill])
def test_what_is_disturbed_accepts_the_same(
    mill: PacedMill, undisturbed: Accepted, disturb: Callable[[Mill], None]
) -> None:
    # Given a synthesis of which a few shards are committed, if I disturb it,
    job = f"disturbed{disturb.__name__.replace('_', '-')}"
    mill.slow(0.5)
    begin(mill, job)
    mill.begun(job, 100)
    disturb(mill)

    # I expect the same images.
    assert finished(mill, job) == undisturbed


def test_a_worker_that_dies_while_it_chooses_loses_nothing(mill: Mill, undisturbed: Accepted) -> None:
    # Given a synthesis whose candidates are made, if everybody dies when the first final shard is written,
    job = "choosing"
    begin(mill, job)
    store = mill.client.backend.store
    out = f"jobs/{job}/out/shard-"
    wait_until(lambda: any(True for _ in store.list(out)), 60, "what is chosen to be written")
    _kill_all(mill)
    assert finished(mill, job) == undisturbed
