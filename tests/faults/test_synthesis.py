"""What is killed or wiped in the middle of a synthesis: the same images are accepted, whoever made which candidate."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.data import image_index
from contract.jobs.lifecycle import read_images
from producer import Client
from tests.mill import Mill
from tests.waiting import wait_until

ASKED: dict[str, Any] = {"gate": "fashion-cnn", "per_class": 60, "min_score": 0.8, "dedup": 0.001, "shard_size": 64}
Accepted = set[tuple[str, str]]


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """Three workers."""
    data = tmp_path_factory.mktemp("mill")
    with Mill(data, workers=3, cache_dir=data / "cache").running() as made:
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
    assert len(found) == 10 * 60
    return found


@pytest.fixture(scope="module")
def undisturbed(mill: Mill) -> Accepted:
    begin(mill, "undisturbed")
    return finished(mill, "undisturbed")


def test_one_worker_accepts_what_three_do(tmp_path: Path, undisturbed: Accepted) -> None:
    # Given another stack with one worker, whose batches are of another size,
    with Mill(tmp_path, workers=1, cache_dir=tmp_path / "cache", batch_size=7).running() as other:
        begin(other, "alone")
        assert finished(other, "alone") == undisturbed


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
def test_what_is_disturbed_accepts_the_same(mill: Mill, undisturbed: Accepted, disturb: Callable[[Mill], None]) -> None:
    # Given a synthesis of which a few shards are committed, if I disturb it,
    job = f"disturbed{disturb.__name__.replace('_', '-')}"
    begin(mill, job)
    mill.begun(job, 200)
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
