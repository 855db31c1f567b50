"""A client fetches the page of a job: it exists, it is waited for, or there is none. The clock is a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from contract.errors import JobConflict, ServiceUnavailable, UnknownJob
from contract.jobs.lifecycle import Backend, close, submit
from contract.jobs.specs import Classify, Evaluate, Source, Spec, Train
from contract.jobs.status import State
from contract.keys.jobs import JobKeys
from contract.models.families import make_recipe
from producer.jobs.reports import fetch

SOURCE = Source(kind="prefix", uri="s3://b/in/", label="in")
COMMON: dict[str, Any] = {"id": "job", "source": SOURCE, "output": "s3://b/jobs/job/out/"}
CLASSIFY = Classify(**COMMON, model="m@1", weights_sha256="0" * 64)
EVALUATE = Evaluate(**COMMON, model="m@1", weights_sha256="0" * 64)
TRAIN = Train(**COMMON, name="m", recipe=make_recipe("cnn", []))


@dataclass
class Clock:
    """Time passes only while somebody waits."""

    now: float = 0.0

    def pause(self, seconds: float) -> None:
        self.now += seconds


def get(backend: Backend, timeout: float = 60.0) -> str:
    clock = Clock()
    return fetch(backend, "job", timeout=timeout, clock=lambda: clock.now, pause=clock.pause)


def asked(backend: Backend) -> int:
    return int(backend.ledger.redis.llen(f"{backend.ledger.keys.broker_prefix}generate"))


def begun(backend: Backend, spec: Spec, ended: State | None = None) -> None:
    submit(backend, spec)
    if ended:
        close(backend, "job", ended)


@pytest.mark.parametrize(
    ("spec", "ended", "why"),
    [
        (TRAIN, None, "a train job makes none"),
        (TRAIN, "succeeded", "a train job makes none"),
        (CLASSIFY, None, "it has not ended"),
        (EVALUATE, None, "it has not ended"),
        (EVALUATE, "canceled", "it ended without one, canceled"),
    ],
)
def test_why_there_is_none_is_said_at_once(backend: Backend, spec: Spec, ended: State | None, why: str) -> None:
    begun(backend, spec, ended)
    with pytest.raises(JobConflict, match=f"job has no page: {why}; `imagemill show job`"):
        get(backend)
    assert asked(backend) == 0


def test_a_page_that_is_there_is_taken_as_it_is(backend: Backend) -> None:
    begun(backend, CLASSIFY, "succeeded")
    backend.store.put(JobKeys("job").report, "<html>ä".encode())
    assert get(backend, timeout=0) == "<html>ä"
    assert asked(backend) == 0


@pytest.mark.parametrize("ended", ["succeeded", "failed", "canceled"])
def test_without_a_worker_the_queue_is_named(backend: Backend, ended: State) -> None:
    begun(backend, CLASSIFY, ended)
    with pytest.raises(ServiceUnavailable, match=r"No worker is alive on the queue generate .* --queues generate"):
        get(backend)
    assert asked(backend) == 3, "again every 20 s, should Redis have lost the message"


def test_a_worker_that_has_no_time_is_told_from_none(backend: Backend) -> None:
    begun(backend, CLASSIFY, "succeeded")
    backend.ledger.beat("w", 60.0, queues="classify,generate")
    with pytest.raises(ServiceUnavailable, match="No worker has made the page of job within 60 s"):
        get(backend)


def test_a_job_that_is_retried_meanwhile_is_not_waited_for(backend: Backend) -> None:
    begun(backend, CLASSIFY, "succeeded")
    clock = Clock()

    def pause(seconds: float) -> None:
        clock.pause(seconds)
        backend.store.delete(JobKeys("job").end)

    with pytest.raises(JobConflict, match="it has not ended"):
        fetch(backend, "job", timeout=60, clock=lambda: clock.now, pause=pause)


def test_what_is_no_job_is_unknown(backend: Backend) -> None:
    with pytest.raises(UnknownJob):
        get(backend)
