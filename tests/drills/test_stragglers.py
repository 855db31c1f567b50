"""The tail of a job with one worker ten times slower, with and without second copies of its shards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.jobs.commits import iter_commits
from tests.fleet.sleeping_job import begin, rows
from tests.fleet.sleeping_mill import SleepingMill
from tests.waiting import wait_until

JOB = "asleep"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("speculation", ["on", "off"])
def test_one_worker_is_ten_times_slower(
    tmp_path: Path, long: bool, figures: Callable[..., None], speculation: str
) -> None:
    # Given two workers with a slot each, of which one takes ten times as long,
    seconds, shards = (10.0, 40) if long else (2.0, 5)

    mill = SleepingMill(tmp_path, (10 * seconds, seconds), lease_seconds=30.0, speculation=speculation)
    with mill.running():
        client = mill.client
        keys, began = begin(client.backend, JOB, shards, 4)
        # if a job runs to its last shard, which the slow one holds,
        wait_until(lambda: client.status(JOB).shards.done >= shards - 1, 60 * seconds, "all shards but one")
        alone = time.monotonic() - began
        end = mill.finished(JOB, 30 * seconds)
        took = time.monotonic() - began
        commits = list(iter_commits(client.backend.store, JOB))
        counted = rows(client.backend.store, JOB)
    by_slow = sum(commit.worker.startswith("worker-0") for commit in commits)
    figures(
        speculation=speculation,
        shards=shards,
        shard_seconds=f"{seconds:g} and {10 * seconds:g}",
        by_slow=by_slow,
        all_but_one_seconds=round(alone, 1),
        tail_seconds=round(took - alone, 1),
        whole_seconds=round(took, 1),
    )
    # I expect every row once.
    assert (end.state, end.ok, end.errors) == ("succeeded", len(keys), 0)
    assert counted == Counter(keys)
