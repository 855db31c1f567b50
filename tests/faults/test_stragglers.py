"""A shard whose worker is slow, stopped or killed is run a second time: every row is there once, whoever was first."""

from __future__ import annotations

import hashlib
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from contract.data.items import parse_s3
from contract.jobs.commits import iter_commits
from contract.jobs.status import ShardCommit
from tests.fleet.sleeping_job import begin, rows
from tests.fleet.sleeping_mill import SleepingMill
from tests.mill import Mill
from tests.waiting import wait_until

SLOW, FAST = "worker-0", "worker-1"
USUAL = 3.0
"""Seconds that a shard takes a fast worker; it is copied after twice as long."""
LEASE = 120.0
"""Longer than any of these tests waits."""
SHARDS, ITEMS = 4, 3


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SleepingMill]:
    """A slow worker and a fast one with a slot each, whose engines sleep."""

    with (
        pytest.MonkeyPatch.context() as patched,
        SleepingMill(tmp_path_factory.mktemp("mill"), (30.0, USUAL), lease_seconds=LEASE).running() as made,
    ):
        patched.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.2))
        yield made


def leases(mill: Mill, job: str, copies: bool = False) -> dict[int, str]:
    """The worker that holds each shard of a job, or the second copy of it."""
    ledger = mill.client.backend.ledger
    held = ledger.hash(ledger.keys.job(job)[5 if copies else 2])
    return {int(shard): lease.partition("@")[0] for shard, lease in held.items()}


def tail(mill: SleepingMill, job: str) -> tuple[list[str], int]:
    """Run a job until only the slow worker has a shard of it; return the job's keys and that shard.

    A copy of it ends once `whole` waits for it.
    """
    wait_until(mill.ready, 60, "the workers")
    mill.hold_copies()
    keys, _ = begin(mill.client.backend, job, SHARDS, ITEMS)
    wait_until(lambda: SLOW in leases(mill, job).values(), 30, "the slow worker to have a shard")
    wait_until(lambda: mill.client.status(job).shards.done == SHARDS - 1, 60, "the other shards")
    (shard,) = leases(mill, job)
    return keys, shard


def copied(mill: Mill, job: str) -> None:
    wait_until(lambda: set(leases(mill, job, copies=True).values()) == {FAST}, 30, "the fast worker to have a copy")


def whole(mill: SleepingMill, job: str, keys: list[str]) -> dict[int, ShardCommit]:
    """Check that each item has one row, and each object is as it was committed; return the commits."""
    mill.release_copies()
    end, store = mill.finished(job, LEASE / 2), mill.client.backend.store
    assert (end.state, end.ok, end.errors) == ("succeeded", len(keys), 0)
    assert rows(store, job) == Counter(keys)
    commits = {commit.shard: commit for commit in iter_commits(store, job)}
    for output in (output for commit in commits.values() for output in commit.outputs):
        bucket, key = parse_s3(output.address)
        assert hashlib.sha256(store.get(key, bucket=bucket)).hexdigest() == output.sha256
    return commits


def back(mill: Mill, name: str, since: float) -> None:
    """Wait until a worker that was killed is there again, and not only the heartbeat of its predecessor."""

    def fresh() -> bool:
        workers = [worker for worker in mill.client.workers() if worker.name.startswith(f"{name}@")]
        return any(float(worker.fields["started_at"]) > since for worker in workers)

    wait_until(fresh, 60, f"{name} to be started again")


def idle(mill: Mill, name: str) -> bool:
    beats = [worker.fields.get("shards") for worker in mill.client.workers() if worker.name.startswith(f"{name}@")]
    return beats == ["0"]


def test_a_slow_worker_is_not_waited_for_and_harms_nothing_when_it_notices(mill: SleepingMill) -> None:
    keys, shard = tail(mill, "slow")
    commits = whole(mill, "slow", keys)
    assert commits[shard].worker.startswith(FAST)
    assert f"Shard {shard} of slow begins, as a second copy, attempt 1" in mill.log(FAST)
    wait_until(lambda: idle(mill, SLOW), 15, "the slow worker to give up")
    assert whole(mill, "slow", keys) == commits
    assert "raised" not in mill.log(SLOW)


def test_a_worker_that_stands_still_is_not_waited_for_and_changes_nothing_when_it_goes_on(mill: SleepingMill) -> None:
    # Given a worker that stands still with the last shard, I expect the job to end before its lease lapses,
    keys, shard = tail(mill, "still")
    mill.pause(SLOW)
    began = time.monotonic()
    commits = whole(mill, "still", keys)
    assert time.monotonic() - began < LEASE
    assert commits[shard].worker.startswith(FAST)

    # and nothing to change when it goes on.
    mill.go_on(SLOW)
    wait_until(lambda: idle(mill, SLOW), 30, "the worker to give up")
    assert whole(mill, "still", keys) == commits


def test_a_copy_whose_worker_is_killed_leaves_the_shard_to_its_holder(mill: SleepingMill) -> None:
    keys, shard = tail(mill, "bereft")
    copied(mill, "bereft")
    killed_at = time.time()
    mill.kill(FAST)
    commits = whole(mill, "bereft", keys)
    assert commits[shard].worker.startswith(SLOW)
    assert commits[shard].split is None
    back(mill, FAST, killed_at)


def test_a_copy_goes_on_when_the_holder_is_killed(mill: SleepingMill) -> None:
    keys, shard = tail(mill, "orphan")
    copied(mill, "orphan")
    killed_at = time.time()
    mill.kill(SLOW)
    assert whole(mill, "orphan", keys)[shard].worker.startswith(FAST)
    back(mill, SLOW, killed_at)


def test_a_copy_survives_a_wiped_redis(mill: SleepingMill) -> None:
    keys, _ = tail(mill, "wiped")
    copied(mill, "wiped")
    mill.pause(SLOW)
    mill.client.backend.ledger.redis.flushall()
    whole(mill, "wiped", keys)
    mill.go_on(SLOW)
    wait_until(lambda: idle(mill, SLOW), 30, "the worker to give up")
    whole(mill, "wiped", keys)


def test_a_worker_that_leaves_gives_its_copy_back(mill: SleepingMill) -> None:
    keys, _ = tail(mill, "left")
    copied(mill, "left")
    mill.kill(FAST, signal.SIGTERM)
    whole(mill, "left", keys)
