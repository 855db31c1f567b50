"""Who is asked to drain, and who is not."""

from __future__ import annotations

import pytest

from contract.backend.heartbeats import Worker
from contract.errors import InvalidInput
from contract.fleet.drain import drain, find
from contract.jobs.lifecycle import Backend

ALIVE = [
    Worker("worker-1@a", {"host": "a", "pool": "cpu", "process": "p1"}),
    Worker("worker-10@a", {"host": "a", "pool": "gpu", "process": "p10"}),
    Worker("worker-2@b", {"host": "b", "pool": "gpu", "process": "p2"}),
]


def names(*args: str, **more: str) -> list[str]:
    return [worker.name for worker in find(ALIVE, *args, **more)]


def test_a_worker_is_named_by_its_name_or_by_a_prefix_that_is_its_own() -> None:
    assert names("worker-1@a") == ["worker-1@a"]
    assert names("worker-2") == ["worker-2@b"]
    assert names("worker-10") == ["worker-10@a"]


def test_a_host_or_a_pool_names_all_its_workers() -> None:
    assert names(all_of="a") == ["worker-1@a", "worker-10@a"]
    assert names(all_of="gpu") == ["worker-10@a", "worker-2@b"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "worker-1"}, "may be any of 2 workers (worker-1@a, worker-10@a); write more of the name."),
        ({"name": "wroker-2@b"}, "There is no live worker 'wroker-2@b'; did you mean worker-2@b"),
        ({"all_of": "gpus"}, "No live worker is on a host or in a pool 'gpus'; did you mean gpu"),
        ({}, "Name either a worker or"),
        ({"name": "worker-2", "all_of": "b"}, "Name either a worker or"),
    ],
)
def test_whoever_means_nobody_or_several_is_told(given: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        find(ALIVE, **given)
    assert said in str(raised.value)


def test_a_mark_names_a_process_and_expires(backend: Backend) -> None:
    # Given a worker that lives, if it is asked to drain,
    ledger = backend.ledger
    assert ledger.beat("worker-1@a", 15, process="p1") is None
    assert drain(ledger, [worker for worker in ledger.workers() if worker.name == "worker-1@a"]) == ["worker-1@a"]

    # I expect the next heartbeat to be answered with its process, which a later one does not have, for a while.
    assert ledger.beat("worker-1@a", 15, process="p1") == "p1"
    assert 0 < int(ledger.redis.ttl(ledger.keys.drain("worker-1@a"))) <= 600
