"""How a client comes by the page of a job: it is there, it is waited for, or there is none. The clock is a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from contract.errors import JobConflict, ServiceUnavailable, UnknownJob
from contract.jobs.lifecycle import House, close, submit
from contract.jobs.specs import Classify, Evaluate, Source, Spec, Train
from contract.jobs.status import State
from contract.keys import JobKeys
from contract.models.recipes import make_recipe
from producer.jobs.reports import fetch

SOURCE = Source(kind="prefix", uri="s3://b/in/", label="in")
COMMON: dict[str, Any] = {"id": "job", "source": SOURCE, "output": "s3://b/jobs/job/out/"}
CLASSIFY = Classify(**COMMON, model="m@1", weights_sha256="0")
EVALUATE = Evaluate(**COMMON, model="m@1", weights_sha256="0")
TRAIN = Train(**COMMON, name="m", recipe=make_recipe("cnn", []))


@dataclass
class Clock:
    """Time passes only while somebody waits."""

    now: float = 0.0

    def pause(self, seconds: float) -> None:
        self.now += seconds


def get(house: House, timeout: float = 60.0) -> str:
    clock = Clock()
    return fetch(house, "job", timeout=timeout, clock=lambda: clock.now, pause=clock.pause)


def asked(house: House) -> int:
    return int(house.ledger.redis.llen(f"{house.ledger.keys.broker_prefix}generate"))


def begun(house: House, spec: Spec, ended: State | None = None) -> None:
    submit(house, spec)
    if ended:
        close(house, "job", ended)


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
def test_why_there_is_none_is_said_at_once(house: House, spec: Spec, ended: State | None, why: str) -> None:
    begun(house, spec, ended)
    with pytest.raises(JobConflict, match=f"job has no page: {why}; `imagemill show job`"):
        get(house)
    assert asked(house) == 0


def test_a_page_that_is_there_is_taken_as_it_is(house: House) -> None:
    begun(house, CLASSIFY, "succeeded")
    house.store.put(JobKeys("job").report, "<html>ä".encode())
    assert get(house, timeout=0) == "<html>ä"
    assert asked(house) == 0


@pytest.mark.parametrize("ended", ["succeeded", "failed", "canceled"])
def test_without_a_worker_the_queue_is_named(house: House, ended: State) -> None:
    begun(house, CLASSIFY, ended)
    with pytest.raises(ServiceUnavailable, match=r"No worker is alive on the queue generate .* --queues generate"):
        get(house)
    assert asked(house) == 3, "again every 20 s, should Redis have lost the message"


def test_a_worker_that_has_no_time_is_told_from_none(house: House) -> None:
    begun(house, CLASSIFY, "succeeded")
    house.ledger.beat("w", 60.0, queues="classify,generate")
    with pytest.raises(ServiceUnavailable, match="No worker has made the page of job within 60 s"):
        get(house)


def test_a_job_that_is_retried_meanwhile_is_not_waited_for(house: House) -> None:
    begun(house, CLASSIFY, "succeeded")
    clock = Clock()

    def pause(seconds: float) -> None:
        clock.pause(seconds)
        house.store.delete(JobKeys("job").end)

    with pytest.raises(JobConflict, match="it has not ended"):
        fetch(house, "job", timeout=60, clock=lambda: clock.now, pause=pause)


def test_what_is_no_job_is_unknown(house: House) -> None:
    with pytest.raises(UnknownJob):
        get(house)
