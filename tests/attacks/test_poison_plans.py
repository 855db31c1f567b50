"""Sources that were made to end their planner: each job ends with a reason, and the controller goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import pytest

from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, read_plan, reopen, submit
from contract.jobs.sources import SourceName
from contract.jobs.specs import Classify, Evaluate, Reconstruct, Source, Spec
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from tests.attacks.bad_planners import deaf_or_plan, hang, kill, slow_or_plan
from tests.poisons import POISONS
from tests.waiting import wait_until
from worker.control import plan_child
from worker.control.plan_attempts import read_attempts
from worker.control.planners import Planners


def begin(backend: Backend, id: str, kind: SourceName = "prefix", name: str = "in/", frames: int = 0) -> Spec:
    bucket = backend.store.bucket
    source = Source(kind=kind, uri=f"s3://{bucket}/{name}", label=f"s3://{bucket}/{name}")
    spec = Classify(
        id=id,
        source=source,
        model="m@1",
        weights_sha256="0" * 64,
        frames=frames,
        output=f"s3://{bucket}/jobs/{id}/out/",
    )
    submit(backend, spec)
    return spec


def begin_labelled(backend: Backend, id: str, kind: SourceName, name: str) -> Spec:
    bucket = backend.store.bucket
    source = Source(kind=kind, uri=f"s3://{bucket}/{name}", label=f"s3://{bucket}/{name}")
    spec = Reconstruct(
        id=id,
        source=source,
        model="vae@1",
        weights_sha256="0" * 64,
        shard_size=64,
        output=f"s3://{bucket}/jobs/{id}/out/",
    )
    submit(backend, spec)
    return spec


@contextmanager
def planners(
    backend: Backend,
    settings: Settings,
    serve: Callable[[Settings, str, Connection], None] = plan_child.serve,
    **more: object,
) -> Iterator[Planners]:
    made = Planners(backend, settings.model_copy(update=more), serve)
    try:
        yield made
    finally:
        made.close()


def ended(backend: Backend, job: str, seconds: float = 60) -> Status:
    wait_until(lambda: read_end(backend.store, job) is not None, seconds, f"{job} to end")
    end = read_end(backend.store, job)
    assert end is not None
    return end


@pytest.mark.parametrize("name", POISONS)
def test_a_poisonous_source_ends_its_job_with_a_reason(backend: Backend, settings: Settings, name: str) -> None:
    poison = POISONS[name]
    poison.put(backend.store, poison.name, 4)
    (begin_labelled if poison.labelled else begin)(backend, "job", poison.kind, poison.name)
    with planners(backend, settings) as running:
        running.plan("job")
        if poison.says:
            end = ended(backend, "job")
            assert end.state == "failed"
            assert re.search(poison.says, end.reason or ""), end.reason
        else:
            wait_until(lambda: read_plan(backend.store, "job") is not None, 60, "the plan")
            plan = read_plan(backend.store, "job")
            assert plan is not None and 0 < plan.items < 10


def test_what_takes_too_much_memory_ends_after_three_attempts(backend: Backend, settings: Settings) -> None:
    # Given a manifest of 30 kB with a thousand rows that share one address of 1 MB, a gigabyte of rows,
    poison = POISONS["a gigabyte of rows in 30 kB"]
    poison.put(backend.store, poison.name, 0)
    begin(backend, "job", poison.kind, poison.name)

    # if it is planned, I expect a reason that names what, where and what to do.
    with planners(backend, settings) as running:
        running.plan("job")
        end = ended(backend, "job")
    assert end.state == "failed"
    assert end.reason == (
        f"s3://{backend.store.bucket}/rows.parquet could not be planned in 3 attempts: the planner, reading "
        "rows.parquet, took more than 128 MB of memory; correct that object, or raise IMAGEMILL_PLAN_MEMORY_MB."
    )


# Children that behave worse than any source that is known


@pytest.mark.parametrize(
    ("serve", "stall_seconds", "why"),
    [
        (kill, 60.0, "reading in/kills.tar, was ended by SIGKILL, perhaps for want of memory; correct that object"),
        # Enough for a child to start on a busy machine: else it made no progress before it says what it reads.
        (hang, 5.0, "reading in/hangs.tar, made no progress for 5 s; correct that object."),
    ],
)
def test_a_planner_that_dies_or_hangs_is_counted(
    backend: Backend,
    settings: Settings,
    serve: Callable[[Settings, str, Connection], None],
    stall_seconds: float,
    why: str,
) -> None:
    begin(backend, "job")
    with planners(backend, settings, serve, plan_stall_seconds=stall_seconds) as running:
        running.plan("job")
        end = ended(backend, "job")
    assert end.state == "failed"
    assert end.reason is not None
    assert "could not be planned in 3 attempts: the planner, " + why in end.reason


def test_a_job_that_only_waits_for_a_worker_may_be_planned_any_number_of_times(
    backend: Backend, settings: Settings
) -> None:
    # Given an evaluation, whose images only its worker counts, if the reconciler sends its plan tick after tick,
    bucket = backend.store.bucket
    source = Source(kind="prefix", uri=f"s3://{bucket}/in/", label="in")
    submit(backend, Evaluate(id="job", source=source, model="m@1", weights_sha256="0" * 64, output=f"s3://{bucket}/o/"))
    with planners(backend, settings) as running:
        for _ in range(settings.max_attempts + 2):
            running.plan("job")
            wait_until(lambda: not running._waiting and not running._running, 60, "the planner to end")
    # I expect it to wait on, for none of these attempts failed.
    assert backend.ledger.state("job") == "planning"


def test_attempts_survive_a_wiped_redis_and_another_controller(backend: Backend, settings: Settings) -> None:
    # Given a source that has killed two planners of a controller, which then died,
    begin(backend, "job")
    with planners(backend, settings, kill, max_attempts=2) as running:
        running.plan("job")
        ended(backend, "job")
    # if Redis is wiped and the job resumed, I expect that it begins with no attempts, and a new reason at its end;
    backend.ledger.drop("job")
    backend.store.put("in/0.jpg", b"x")
    reopen(backend, "job")
    with planners(backend, settings) as running:
        running.plan("job")
        wait_until(lambda: read_plan(backend.store, "job") is not None, 60, "the plan")
    # and that what another controller counted stands: it gives up without another attempt.
    begin(backend, "other")
    found = {"run": 0, "attempts": 3, "reason": "it was ended."}
    backend.store.put(JobKeys("other").planning, json.dumps(found).encode())
    with planners(backend, settings, hang) as running:
        running.plan("other")
        assert ended(backend, "other").reason == (
            f"s3://{backend.store.bucket}/in/ could not be planned in 3 attempts: it was ended."
        )


@pytest.mark.parametrize("serve", [slow_or_plan, deaf_or_plan])
def test_a_new_job_waits_for_no_plan_that_hangs_or_takes_long(
    backend: Backend, settings: Settings, serve: Callable[[Settings, str, Connection], None]
) -> None:
    # Given more jobs than there are planners, which all take long, or are asked to stop before they listen,
    backend.store.put("in/0.jpg", b"x")
    with planners(backend, settings, serve, plan_processes=2) as running:
        for n in range(6):
            begin(backend, f"slow-{n}")
            running.plan(f"slow-{n}")
        # if another job comes, I expect its plan, though the others never end by themselves,
        begin(backend, "quick")
        running.plan("quick")
        wait_until(lambda: read_plan(backend.store, "quick") is not None, 60, "the plan of the other job")
    # and none of the others blamed for making room.
    for n in range(6):
        assert read_end(backend.store, f"slow-{n}") is None
        assert read_attempts(backend.store, f"slow-{n}", 0).attempts == 0


def test_planning_tells_a_store_that_is_away_from_a_source_that_hangs(backend: Backend, settings: Settings) -> None:
    backend.store.put("in/0.jpg", b"x")
    begin(backend, "job")
    away = settings.model_copy(update={"s3_endpoint": "127.0.0.1:1", "plan_stall_seconds": 10.0})
    running = Planners(backend, away)
    running.plan("job")
    wait_until(lambda: not running._running, 60, "the planner to give up")
    running.close()
    assert read_end(backend.store, "job") is None
    assert json.loads(backend.store.get(JobKeys("job").planning))["attempts"] == 0
