"""The tick, over several jobs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from contract.backend.dispatch import Can, Grant, next_shard, waiting
from contract.errors import ObjectDamaged
from contract.jobs.ends import Standing, read_end, read_standing
from contract.jobs.lifecycle import Backend, cancel, reopen, status
from contract.keys.jobs import JobKeys
from contract.keys.models import model_record
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_CONTROL, QUEUES
from contract.models.rules import ANY, Rule
from contract.settings import Settings
from tests.parity import MODEL
from tests.waiting import wait_until
from tests.worker.conftest import Jobs, Runners
from worker.control import reconcile
from worker.control.fire_schedules import utc_now
from worker.control.reconcile import _tick, tick


def test_a_job_of_a_newer_version_keeps_no_other_from_going_on(
    backend: Backend, settings: Settings, job: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    # Given two jobs whose tickets were lost, of which the first is of a kind that this controller does not know,
    for id in ("a-newer", "b-known"):
        job(b"\x01", b"\x02", id=id)
    redis: Any = backend.ledger.redis
    redis.hset(backend.ledger.keys.job("a-newer")[0], "kind", "count")
    redis.delete(*(f"{backend.ledger.keys.broker_prefix}{queue}" for queue in QUEUES))

    # I expect a tick to replace them, and to say of the first what it waits for.
    tick(backend, settings)
    assert waiting(backend.ledger, [QUEUE_CLASSIFY]) == {"classify": 2}
    assert "a-newer waits for a controller of its version: There is no job kind 'count'" in caplog.text


def test_jobs_that_wait_to_be_planned_cost_a_tick_no_reading_of_their_specs(
    backend: Backend, settings: Settings, job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given jobs whose messages for a planner were lost,
    ids = [f"job-{n}" for n in range(3)]
    for id in ids:
        job(b"\x01", id=id)
        backend.ledger.redis.hset(backend.ledger.keys.job(id)[0], "state", "queued")
    beat(backend, "one", "fp32")
    _tick(backend, settings, utc_now)  # which does what a tick does once, and once a minute
    backend.ledger.redis.delete(f"{backend.ledger.keys.broker_prefix}{QUEUE_CONTROL}")
    read: list[str] = []
    get = backend.store.get

    def reading(key: str, **more: Any) -> bytes:
        read.append(key)
        return get(key, **more)

    # I expect a tick to send them anew, by what the ledger says alone.
    with monkeypatch.context() as patched:
        patched.setattr(backend.store, "get", reading)
        _tick(backend, settings, utc_now)
    assert waiting(backend.ledger, [QUEUE_CONTROL]) == {QUEUE_CONTROL: 3}
    assert not [key for key in read if key in {JobKeys(id).spec for id in ids}]


def test_a_round_sends_messages_for_some_of_the_jobs_that_wait_to_be_planned(
    backend: Backend, settings: Settings, job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more jobs that wait for a planner than a round sends messages for,
    monkeypatch.setattr(reconcile, "_PLANS", 2)
    ids = {f"job-{n}" for n in range(4)}
    for id in ids:
        job(b"\x01", id=id)
        backend.ledger.redis.hset(backend.ledger.keys.job(id)[0], "state", "queued")
    queue = f"{backend.ledger.keys.broker_prefix}{QUEUE_CONTROL}"
    backend.ledger.redis.delete(queue)

    # I expect as many messages,
    _tick(backend, settings, utc_now)
    assert waiting(backend.ledger, [QUEUE_CONTROL]) == {QUEUE_CONTROL: 2}

    # and one for each job in the end.
    def all_sent() -> bool:
        _tick(backend, settings, utc_now)
        return {str(args[0]) for args in backend.ledger.messages([QUEUE_CONTROL], 0)} == ids

    wait_until(all_sent, 30, "a message for each job")


def test_an_object_that_was_damaged_keeps_no_other_job_from_going_on(
    backend: Backend, settings: Settings, job: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    # Given three jobs, of which one has a spec and one a commit that somebody overwrote, and a Redis that was wiped,
    for id in ("a-spec", "b-commit", "c-whole"):
        job(b"\x01", id=id)
    backend.store.put(JobKeys("a-spec").spec, b"{")
    backend.store.put(JobKeys("b-commit").commit(0), b"{}")
    backend.ledger.redis.flushall()

    # I expect the third to go on, the second to end with a sentence that names the object, and a word on the first.
    _tick(backend, settings, utc_now)
    assert waiting(backend.ledger, [QUEUE_CLASSIFY]) == {"classify": 1}
    assert status(backend, "c-whole").state == "running"
    end = read_end(backend.store, "b-commit")
    assert end is not None and end.state == "failed"
    assert f"{JobKeys('b-commit').commit(0)} is not a commit that this version can read" in str(end.reason)
    assert "a-spec cannot be reconciled" in caplog.text


def test_a_run_that_is_opened_while_an_entry_is_rebuilt_goes_on(
    backend: Backend, settings: Settings, job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job with a damaged commit that is deleted, and taken up again, while its entry is rebuilt,
    job(b"\x01")
    backend.ledger.redis.flushall()

    def overtaken(backend: Backend, id: str) -> None:
        cancel(backend, id)
        reopen(backend, id)
        raise ObjectDamaged("A commit was damaged.")

    with monkeypatch.context() as patched:
        patched.setattr(reconcile, "rebuild", overtaken)
        _tick(backend, settings, utc_now)

    # I expect the run that was opened to go on.
    assert read_standing(backend.store, "job") == Standing(1, None)
    assert status(backend, "job").state == "running"


def test_a_run_that_is_opened_while_an_earlier_one_finds_no_worker_goes_on(
    backend: Backend, settings: Settings, job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job that no live worker can run, and that is canceled and resumed just when it is to end for that,
    job(b"\x01", precision="bf16")
    beat(backend, "plain", "fp32")
    impatient = settings.model_copy(update={"worker_wait_seconds": 0.0})

    def overtaken(*args: Any) -> str:
        cancel(backend, "job")
        reopen(backend, "job")
        return "No worker can run it."

    with monkeypatch.context() as patched:
        patched.setattr(reconcile, "unmet", overtaken)
        _tick(backend, impatient, utc_now)

    # I expect the run that was opened to be open, and to end for itself.
    assert read_standing(backend.store, "job") == Standing(1, None)
    _tick(backend, impatient, utc_now)
    end = read_end(backend.store, "job")
    assert end is not None and end.state == "failed"


def test_a_commit_of_a_newer_version_ends_no_job(
    backend: Backend, settings: Settings, job: Jobs, runner_of: Runners, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a job with a commit of a newer version, and a Redis that was wiped,
    job(b"\x01", b"\x02", shard_size=1)
    runner_of().run("job", 0)
    ours = backend.store.get(JobKeys("job").commit(0))
    backend.store.put(JobKeys("job").commit(0), json.dumps(json.loads(ours) | {"energy": 1.5}).encode())
    backend.ledger.redis.flushall()

    # I expect a tick to leave it to a controller of that version,
    _tick(backend, settings, utc_now)
    assert read_end(backend.store, "job") is None
    assert "job waits for a controller of its version" in caplog.text

    # and the job to go on once it was upgraded.
    backend.store.put(JobKeys("job").commit(0), ours)
    _tick(backend, settings, utc_now)
    assert status(backend, "job").ok == 1


def test_a_job_that_no_live_worker_can_run_says_what_it_waits_for(
    backend: Backend, settings: Settings, job: Jobs
) -> None:
    # Given a job in bf16, if nobody serves its queue, and if only a worker without bf16 does, I expect it to say so,
    job(b"\x01", precision="bf16")
    _tick(backend, settings, utc_now)
    assert status(backend, "job").waiting_for == "a worker of the queue classify"
    beat(backend, "plain", "fp32")
    _tick(backend, settings, utc_now)
    assert status(backend, "job").waiting_for == "a worker with any device/bf16 (plain: cpu fp32)"

    # and no more once there is one that can.
    beat(backend, "better", "fp32,bf16")
    _tick(backend, settings, utc_now)
    assert status(backend, "job").waiting_for is None


def test_a_job_whose_model_no_live_worker_may_load_says_so_and_goes_to_one_that_comes(
    backend: Backend, settings: Settings, job: Jobs
) -> None:
    # Given a worker that loads other models, I expect a job to say what it waits for, and no ticket for it,
    others = Rule(models=("others-*",))
    backend.store.put(model_record(MODEL.name, MODEL.version), MODEL.to_json())
    beat(backend, "one", "fp32", others)
    job(b"\x01")
    _tick(backend, settings, utc_now)
    assert status(backend, "job").waiting_for == (
        f"a worker with any device/any precision, which may load {MODEL.ref} (one: cpu fp32, models others-*)"
    )
    can = Can("cpu", ("fp32",), rule=others.id)
    assert grant(backend, can) is None

    # and the first worker that may load it to get it, though it came after the job.
    mine = Rule(models=(MODEL.name,))
    beat(backend, "two", "fp32", mine)
    _tick(backend, settings, utc_now)
    assert status(backend, "job").waiting_for is None
    assert grant(backend, can) is None
    assert grant(backend, replace(can, rule=mine.id)) is not None


def grant(backend: Backend, can: Can) -> Grant | None:
    token = f"w:{can.rule}"
    return next_shard(backend.ledger, QUEUE_CLASSIFY, token, can, process="w", lease_seconds=30.0)


def beat(backend: Backend, name: str, precisions: str, rule: Rule = ANY) -> None:
    told = rule.model_dump_json() if rule.id else ""
    backend.ledger.beat(name, 60.0, queues=QUEUE_CLASSIFY, device_kind="cpu", precisions=precisions, rule=told)
