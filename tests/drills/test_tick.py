"""A tick costs a few calls to the servers, and little more for each job under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from redis.connection import AbstractConnection

from contract.backend.objects import ObjectStore
from contract.jobs import retention
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from tests.fleet.sleeping_job import begin
from worker.control.reconcile import tick


@dataclass
class Calls:
    """Round trips to Redis and requests to the store in a span, and its seconds."""

    redis: int = 0
    store: int = 0
    seconds: float = 0.0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Calls]:
    """Run something, and count the calls that it makes."""
    calls = Calls()
    send, call = AbstractConnection.send_packed_command, ObjectStore._call

    def sends(self: Any, *args: Any, **options: Any) -> Any:
        calls.redis += 1
        return send(self, *args, **options)

    def asks(*args: Any, **options: Any) -> Any:
        calls.store += 1
        return call(*args, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", sends)
    monkeypatch.setattr(ObjectStore, "_call", asks)

    def run(body: Callable[[], object]) -> Calls:
        before, began = Calls(calls.redis, calls.store), time.monotonic()
        body()
        return Calls(calls.redis - before.redis, calls.store - before.store, round(time.monotonic() - began, 2))

    return run


@pytest.mark.timeout(1800)
def test_a_tick_of_many_jobs(
    backend: Backend,
    settings: Settings,
    long: bool,
    figures: Callable[..., None],
    counted: Callable[[Callable[[], object]], Calls],
) -> None:
    # Given a worker, and many jobs under way,
    backend.ledger.beat("worker@here", 3600, queues="classify", slots=2, device_kind="cpu", precisions="fp32")
    count = 1000 if long else 100
    jobs = [f"busy-{number:05d}" for number in range(count)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda job: begin(backend, job, shards=2), jobs))
    while not retention.build(backend.store, 500):
        pass

    def look() -> None:
        backend.ledger.redis.delete(backend.ledger.keys.lock("tick"))
        tick(backend, settings)

    # if the controller looks after them, some seconds after each other,
    settings = settings.model_copy(update={"reconcile_seconds": 10.0})
    rounds = [counted(look) for _ in range(7)]
    figures(jobs=count, rounds=rounds)
    # I expect one call for each, a few more for each that is compared with the bucket, and no others that grow.
    compared = 20 + count // 6 + 1
    for one in rounds:
        assert one.redis <= count + 2 * compared + 60
        assert one.store <= compared + 20
    assert rounds[-1].redis <= count + 60
    assert set(jobs) <= backend.ledger.active()
