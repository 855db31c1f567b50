"""A worker that is cut off from Redis and the store: nothing is lost, nothing doubled, and then it works again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.jobs.commits import iter_commits
from deploy.local.supervisor import Service
from tests.fleet.sleeper import SECONDS
from tests.fleet.sleeping_job import begin, rows
from tests.mill import Mill
from tests.partitions import NoNamespaces, Partition, by_namespace, by_wires
from tests.waiting import wait_until

JOB, ITEMS, LEASE = "asleep", 3, 2.0


@pytest.fixture(params=["namespace", "wires"])
def partition(request: pytest.FixtureRequest) -> Iterator[Partition]:
    """The way of one worker to the servers."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(by_namespace() if request.param == "namespace" else by_wires())
        except NoNamespaces as reason:
            pytest.skip(str(reason))


@pytest.mark.timeout(900)
def test_a_worker_that_is_cut_off(
    tmp_path: Path, partition: Partition, long: bool, figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two workers on a job, one of which has a network of its own,
    monkeypatch.setenv(SECONDS, "1" if long else "0.5")
    seconds, shards = (60.0, 250) if long else (LEASE + 3, 100)

    def altered(service: Service) -> Service:
        return partition.behind(service) if service.name == "worker-1" else service

    mill = Mill(tmp_path, 2, app="tests.fleet.sleeper", lease_seconds=LEASE, altered=altered)
    with mill.supervisor:
        mill.supervisor.start("redis", "redis-online", "s3")
        backend = mill.client.backend
        backend.store.ensure_bucket()
        mill.supervisor.start(*mill.controllers, *mill.clocks, *mill.workers)

        def alive() -> list[str]:
            return sorted(worker.name for worker in mill.client.workers() if worker.name.startswith("worker-"))

        wait_until(lambda: len(alive()) == 2, 60, "both workers")
        name = alive()[1]
        keys, _ = begin(backend, JOB, shards, ITEMS)

        def held() -> set[int]:
            leases = backend.ledger.hash(backend.ledger.keys.job(JOB)[2])
            return {int(shard) for shard, lease in leases.items() if lease.startswith(name)}

        def committed(*, by_it: bool) -> set[int]:
            return {one.shard for one in iter_commits(backend.store, JOB) if (one.worker == name) == by_it}

        wait_until(lambda: held() and committed(by_it=True), 60, "the worker to be busy")
        # if that is cut off for longer than its leases last, I expect the other one to do its shards,
        partition.cut()
        lost = held()
        threading.Event().wait(seconds)
        wait_until(lambda: lost <= {one.shard for one in iter_commits(backend.store, JOB)}, 60, "its shards to be done")
        assert not mill.client.status(JOB).ended, "the job was over before the worker came back"
        before, others = committed(by_it=True), committed(by_it=False)
        # it to work again once it can,
        partition.mend()
        wait_until(lambda: committed(by_it=True) - before, 120, "the worker to work again")
        end = mill.finished(JOB, 300)
        counted = rows(backend.store, JOB)
        mill.client.close()
    figures(cut_off_seconds=seconds, held=len(lost), done_by_others=len(others), it_did_before=len(before))
    # and every row to be there once.
    assert (end.state, end.ok, end.errors) == ("succeeded", len(keys), 0)
    assert counted == Counter(keys)
