"""The fleet as it is read from a real Redis."""

from __future__ import annotations

import time

import pytest

from contract.backend.ledger import Ledger
from contract.fleet.rates import add_rates, prior, rate_field
from contract.fleet.snapshot import read_fleet
from contract.jobs.specs import Train
from contract.models.families import make_recipe
from contract.models.rules import Rule
from tests.contract.backend.test_ledger import begin, spec_of
from tests.taking import take


def beat(ledger: Ledger, name: str, **fields: object) -> None:
    """A live worker with three slots on a CPU."""
    known = {"host": "h", "queues": "classify,generate", "slots": 3, "device_kind": "cpu", "precisions": "fp32"}
    ledger.beat(name, 60.0, **{**known, **fields})


def test_an_empty_fleet_has_every_queue_and_nothing_on_it(ledger: Ledger) -> None:
    fleet = read_fleet(ledger)
    assert fleet.at == pytest.approx(time.time(), abs=60)
    assert (fleet.workers, fleet.jobs) == ((), ())
    assert [one.queue for one in fleet.queues] == ["classify", "generate", "train", "check"]
    assert {(one.backlog_seconds, one.runnable_shards, one.slots) for one in fleet.queues} == {(0.0, 0, 0)}


def test_a_worker_is_what_its_heartbeat_says(ledger: Ledger) -> None:
    beat(ledger, "a@h", pool="gpu", shards=2, models="m@1,n@2", rate=12.5, started_at="5.000")
    beat(ledger, "b@h", unfit="its bf16 is wrong")
    beat(ledger, "c@h", draining=1)
    beat(ledger, "gone@h")
    ledger.leave("gone@h")
    beat(ledger, "controller@h", queues="control")
    a, b, c = read_fleet(ledger).workers
    assert (a.name, a.pool, a.slots, a.busy, a.models, a.rate, a.since) == ("a@h", "gpu", 3, 2, ("m@1", "n@2"), 12.5, 5)
    assert a.serves
    assert (b.pool, b.serves, c.serves) == ("default", False, False)
    # Only the one that takes new shards counts for the queue.
    assert (read_fleet(ledger).queue("classify").slots, read_fleet(ledger).queue("classify").workers) == (3, 1)
    assert read_fleet(ledger).queue("train").workers == 0


def test_a_worker_says_what_it_takes(ledger: Ledger) -> None:
    rule = Rule(models=("fashion-*",), programs=False, why="IMAGEMILL_PROGRAMS is off")
    beat(ledger, "a@h", device_memory="15", runtimes="openvino,torch", rule=rule.model_dump_json())
    beat(ledger, "b@h")
    a, b = read_fleet(ledger).workers
    assert (a.memory, a.runtimes) == (15, ("openvino", "torch"))
    assert a.rule == "models fashion-*; no programs (IMAGEMILL_PROGRAMS is off)"
    assert (b.memory, b.runtimes, b.rule) == (None, (), ""), "an earlier version does not say"


def test_a_job_says_what_it_waits_for(ledger: Ledger) -> None:
    begin(ledger, "a", 5)
    (job,) = read_fleet(ledger).jobs
    assert job.waiting_for == ""
    ledger.waits_for("a", "a worker with 12 GiB of device memory")
    (job,) = read_fleet(ledger).jobs
    assert job.waiting_for == "a worker with 12 GiB of device memory"


def test_a_heartbeat_that_expired_is_no_worker(ledger: Ledger) -> None:
    beat(ledger, "a@h")
    ledger.redis.delete(ledger.keys.worker("a@h"))
    assert read_fleet(ledger).workers == ()
    assert ledger.workers() == []
    assert ledger.redis.smembers(ledger.keys.workers) == set(), "its name is forgotten"


def test_a_backlog_is_what_no_slot_has_done(ledger: Ledger) -> None:
    # Given a job of five shards of ten images, one done and one half done,
    begin(ledger, "a", 5)
    for shard in (0, 1):
        take(ledger, "a", shard, f"w:{shard}")
        ledger.begin("a", shard, f"w:{shard}")
    ledger.commit("a", 0, 10, 0)
    ledger.renew("a", 1, "w:1", 4, 1)
    # I expect 35 images, on three shards that wait and one that runs.
    fleet = read_fleet(ledger)
    (job,), queue = fleet.jobs, fleet.queue("classify")
    assert (job.id, job.kind, job.state, job.items, job.done, job.errors) == ("a", "classify", "running", 50, 15, 1)
    assert (job.shards.total, job.shards.done, job.shards.running, job.shards.queued) == (5, 1, 1, 3)
    assert (queue.backlog_images, queue.runnable_shards, queue.running_shards) == (35, 3, 1)
    assert job.waiting_seconds >= 0
    assert queue.oldest_waiting_seconds == job.waiting_seconds
    # Nothing is measured and no worker lives: the prior of a CPU counts.
    assert queue.backlog_seconds == pytest.approx(35 / prior("classify", "cpu"))


def test_seconds_follow_the_live_workers_and_their_measured_rates(ledger: Ledger) -> None:
    begin(ledger, "a", 100)
    add_rates(ledger, [(rate_field("classify", "m@1", "cpu"), 100, 10.0)])
    assert read_fleet(ledger).queue("classify").backlog_seconds == pytest.approx(100.0)
    # Given two CPU slots of 10 images a second and one CUDA slot of 100, I expect 40 a second of the average slot.
    beat(ledger, "a@h", slots=2)
    beat(ledger, "b@h", slots=1, device_kind="cuda")
    add_rates(ledger, [(rate_field("classify", "m@1", "cuda"), 1000, 10.0)])
    assert read_fleet(ledger).queue("classify").backlog_seconds == pytest.approx(1000 / 40)


def test_a_training_is_one_long_shard(ledger: Ledger) -> None:
    source = spec_of("x").source
    recipe = make_recipe("cnn", [])
    ledger.create(Train(id="t", name="mine", source=source, recipe=recipe, output="s3://bucket/out/"))
    ledger.planned("t", 0, 0)
    queue = read_fleet(ledger).queue("train")
    assert (queue.runnable_shards, queue.backlog_seconds) == (1, 600.0)


def test_a_job_that_ends_waits_for_nothing(ledger: Ledger) -> None:
    begin(ledger, "a", 1)
    take(ledger, "a", 0, "w:1")
    ledger.commit("a", 0, 10, 0)
    (job,) = read_fleet(ledger).jobs
    assert (job.state, job.backlog_seconds, job.shards.queued) == ("finalizing", 0.0, 0)
    ledger.end("a", "succeeded")
    assert read_fleet(ledger).jobs == ()


def test_a_snapshot_takes_two_round_trips_whatever_waits(ledger: Ledger) -> None:
    begin(ledger, "a", 600)
    begin(ledger, "b", 3)
    beat(ledger, "a@h")

    def commands() -> int:
        before = ledger.info()["total_commands_processed"]
        read_fleet(ledger)
        return int(ledger.info()["total_commands_processed"] - before)

    # Twelve commands for the fleet, one for the worker, three for each job; INFO counts itself. Now and then somebody
    # else's are among them, such as those of a thread that an earlier test has told to end.
    assert min(commands() for _ in range(5)) <= 12 + 1 + 2 * 3 + 2
