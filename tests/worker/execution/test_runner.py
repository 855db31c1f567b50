"""What becomes of a shard that ends otherwise than by a commit, and of whom it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from contract.backend.ledger import Ledger
from contract.errors import ModelError, NewerVersion, ObjectDamaged, RedisUnavailable, StoreUnavailable
from contract.jobs.ends import read_standing
from contract.jobs.lifecycle import Backend, cancel, reopen
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from tests.taking import granted
from tests.waiting import wait_until
from tests.worker.conftest import Jobs
from worker.execution.exclusive import Turns
from worker.execution.health import Health
from worker.execution.leases import Lease, LeaseRenewer
from worker.execution.runner import Host, Runner


class CutOff(Ledger):
    """A ledger of a process that may be cut off from Redis."""

    away = False

    def _run(self, id: str, op: str, *args: Any) -> list[Any]:
        if self.away:
            raise RedisUnavailable("Redis is away.")
        return super()._run(id, op, *args)

    def renew_all(self, held: Any) -> Any:
        if self.away:
            raise RedisUnavailable("Redis is away.")
        return super().renew_all(held)


Raising = Callable[[Exception, Callable[[], None]], None]


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return settings.model_copy(update={"lease_seconds": 1.0})


@pytest.fixture
def cut_off(quick: Settings) -> Iterator[CutOff]:
    with closing(CutOff(quick)) as made:
        yield made


@pytest.fixture
def raising(backend: Backend, cut_off: CutOff) -> Iterator[Raising]:
    """Runs shard 0 of `job` in a process whose work raises after something else has happened."""
    renewer = LeaseRenewer(cut_off, 1.0)
    host = Host(
        name="worker",
        process="worker",
        backend=replace(backend, ledger=cut_off),
        renewer=renewer,
        turns=Turns(),
        health=Health(lambda: None),
        max_attempts=3,
        fault_seconds=0.0,
    )

    def run(error: Exception, meanwhile: Callable[[], None]) -> None:
        def work(lease: Lease) -> Any:
            meanwhile()
            raise error

        grant = granted(cut_off, "job", 0, "worker:1")
        assert grant is not None
        Runner(host).run(grant, work)

    with closing(renewer):
        yield run


def trouble(backend: Backend) -> dict[str, Any]:
    found = backend.ledger.redis.hget(backend.ledger.keys.job("job")[3], "0")
    return dict(json.loads(str(found))) if found else {}


def test_a_worker_that_was_cut_off_from_everything_is_not_taken_for_dead(
    backend: Backend, job: Jobs, quick: Settings, cut_off: CutOff, raising: Raising
) -> None:
    # Given a worker that reaches neither the store nor Redis, and gives up its shard,
    job(b"\x01")
    # after a Redis that started lately nothing is taken for a death
    wait_until(lambda: backend.ledger.info()["uptime_in_seconds"] > 5, 30, "Redis to have run for a while")

    def cut() -> None:
        cut_off.away = True

    raising(StoreUnavailable("The store is away."), cut)

    # if its lease lapses, which looks like a death,
    with closing(Ledger(quick)) as controller:
        wait_until(lambda: controller.lapsed("job").shards, 10, "the lease to lapse")
    assert "dead" in trouble(backend)

    # I expect it to say that it lives once it can, so that nothing counts against the shard.
    cut_off.away = False
    wait_until(lambda: not trouble(backend), 10, "the worker to be heard")
    grant = granted(backend.ledger, "job", 0, "other:1")
    assert grant is not None
    assert grant.trouble.attempts == 1
    assert not grant.trouble.suspect


def test_a_shard_of_an_earlier_run_does_not_end_the_next_one(backend: Backend, job: Jobs, raising: Raising) -> None:
    # Given a shard that takes a while to fail, because its model is gone,
    job(b"\x01")

    # if its job is canceled meanwhile, mended and resumed,
    def resumed() -> None:
        cancel(backend, "job")
        reopen(backend, "job")

    raising(ModelError("The model is gone."), resumed)

    # I expect the new run to go on, and its shard to be free.
    assert read_standing(backend.store, "job").run == 1
    assert read_standing(backend.store, "job").end is None
    wait_until(lambda: granted(backend.ledger, "job", 0, "other:1"), 10, "the shard to be free")


def test_a_shard_that_cannot_run_ends_its_own_run(backend: Backend, job: Jobs, raising: Raising) -> None:
    job(b"\x01")
    cancel(backend, "job")
    reopen(backend, "job")
    raising(ModelError("The model is gone."), lambda: None)
    end = read_standing(backend.store, "job").end
    assert end is not None
    assert (end.state, end.reason) == ("failed", "The model is gone.")


def test_what_a_newer_version_wrote_is_left_to_a_worker_of_it(backend: Backend, job: Jobs, raising: Raising) -> None:
    job(b"\x01")
    raising(NewerVersion("The commit is of a newer version."), lambda: None)
    assert read_standing(backend.store, "job").end is None
    assert trouble(backend)["processes"] == {"worker": 1}


def test_a_shard_of_a_job_that_cannot_be_ended_pauses(backend: Backend, job: Jobs, raising: Raising) -> None:
    # Given a job whose spec somebody overwrote, so that nobody can end it for what its shard met,
    job(b"\x01")
    backend.store.put(JobKeys("job").spec, b"{")
    raising(ObjectDamaged("The spec was damaged."), lambda: None)

    # I expect its shard to wait longer each time, as for a service.
    wait_until(lambda: trouble(backend).get("waits") == 1, 10, "the shard to be given back")
    status = backend.ledger.status("job")
    assert status is not None and status.shards.running == 0
