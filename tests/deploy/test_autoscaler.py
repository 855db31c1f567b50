"""`imagemill up --workers 1..3`: the number of workers follows the work."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from contract.backend.ledger import Ledger
from contract.errors import InvalidInput
from contract.fleet.pools import read_pools
from contract.fleet.snapshot import read_fleet
from contract.jobs.commits import iter_commits
from contract.settings import Settings, load
from deploy import cli
from deploy.local.autoscaler import Autoscaler, environment, parse_count, policy_of
from deploy.local.stack import Stack
from deploy.local.supervisor import Service, Supervisor
from producer import Client
from tests.contract.backend.test_ledger import begin
from tests.mill import check_complete
from tests.taking import take
from tests.waiting import wait_until

NODES = {f"worker-{n}": f"worker-{n}@local" for n in (1, 2, 3)}


@pytest.mark.parametrize(("text", "count"), [("2", (2, 2)), ("1..8", (1, 8)), ("0..1", (0, 1)), ("3..3", (3, 3))])
def test_a_count_is_a_number_or_a_range(text: str, count: tuple[int, int]) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "many", "3..1", "-1", "1..", "1...3", "1-8"])
def test_any_other_count_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"write a number, such as 2, or a range"):
        parse_count(text)


def test_the_command_refuses_it_too(tmp_path: Path) -> None:
    said = CliRunner(env={"IMAGEMILL_DATA": None}).invoke(cli.up, ["--workers", "8..1", "--data", str(tmp_path)])
    assert isinstance(said.exception, InvalidInput)


def test_pools_may_give_other_times_and_never_another_count(settings: Settings) -> None:
    pools = json.dumps({"default": {"target_seconds": 7, "min": 5, "max": 9}, "other": {}})
    policy = policy_of(settings.model_copy(update={"pools": pools}), 1, 3)
    assert (policy.least, policy.most, policy.target_seconds) == (1, 3, 7)
    assert policy_of(settings, 1, 3).target_seconds == 60


def test_the_controller_is_told_the_policy_of_the_stack(settings: Settings) -> None:
    told = settings.model_copy(update={"pools": environment(settings, 1, 3)["IMAGEMILL_POOLS"]})
    assert read_pools(told) == {"default": policy_of(settings, 1, 3)}
    assert environment(told, 1, 3) == {}, "what the user describes is told already"
    assert environment(settings, 0, 0) == {}


def beat(ledger: Ledger, number: int, shards: int = 0) -> None:
    queues = "classify,generate,train,check"
    ledger.beat(NODES[f"worker-{number}"], 60.0, queues=queues, slots=2, device_kind="cpu", shards=shards)


def test_it_starts_what_is_missing_and_drains_the_idlest(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    policy = policy_of(settings.model_copy(update={"pools": '{"default": {"cool_down_seconds": 0}}'}), 1, 3)
    services = [Service(name=name, command=["sleep", "600"]) for name in NODES]
    with Supervisor(services, tmp_path) as supervisor:
        supervisor.start("worker-1")
        scaler = Autoscaler(ledger, supervisor, NODES, policy)
        beat(ledger, 1)
        # Given nothing to do, I expect one worker.
        scaler.look()
        assert [name for name in NODES if supervisor.wants(name)] == ["worker-1"]

        # If much work comes, I expect all three.
        begin(ledger, "a", 5000)
        scaler.look()
        assert [name for name in NODES if supervisor.wants(name)] == list(NODES)
        wait_until(lambda: all(supervisor.pid(name) for name in NODES), 10, "three processes")

        # If all but three shards are gone, two of which the first and the last worker hold, I expect the second to go.
        ledger.end("a", "canceled")
        begin(ledger, "b", 3)
        for shard in (0, 1):
            take(ledger, "b", shard, f"w:{shard}")
        beat(ledger, 1, shards=1)
        beat(ledger, 2)
        beat(ledger, 3, shards=1)
        scaler.look()
        scaler.look()
        assert [name for name in NODES if supervisor.wants(name)] == ["worker-1", "worker-3"]
        assert supervisor.pid("worker-2") is None

        # Workers of another machine on the same Redis are not counted.
        ledger.beat("worker-1@elsewhere", 60.0, queues="classify", slots=100)
        scaler.look()
        assert [name for name in NODES if supervisor.wants(name)] == ["worker-1", "worker-3"]

        # Once the stack stops, I expect nothing to be started.
        scaler.stop()
        begin(ledger, "c", 5000)
        scaler.look()
        assert not supervisor.wants("worker-2")


def test_a_stack_grows_under_a_backlog_and_shrinks_without_losing_or_repeating_a_shard(
    tmp_path: Path, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a stack of one to three workers, with a short target and cool-down,
    pools = {"default": {"target_seconds": 4, "cold_start_seconds": 1, "cool_down_seconds": 4}}
    monkeypatch.setenv("IMAGEMILL_POOLS", json.dumps(pools))
    monkeypatch.setenv("IMAGEMILL_THREADS", "1")  # two slots a worker, whatever the machine
    data = tmp_path / "data"
    with Stack(data, 1, 3) as stack, closing(Client(load(data=data))) as client:
        ledger, store = client.backend.ledger, client.backend.store
        assert [name for name in NODES if stack.supervisor.wants(name)] == ["worker-1"]

        # if I submit a thousand images in small shards,
        keys = [f"photos/{n:04d}.jpg" for n in range(1000)]
        photo = photos["koala"].read_bytes()
        for key in keys:
            store.put(key, photo)
        group = stack.supervisor.pid("worker-1")
        assert group is not None
        os.killpg(group, signal.SIGSTOP)  # no machine is done before the scaler has looked
        try:
            job = client.classify(f"s3://{store.bucket}/photos/", model="efficientnet-lite0", shard_size=16)
            wait_until(lambda: all(map(stack.supervisor.wants, NODES)), 60, "three workers to be asked for")
        finally:
            os.killpg(group, signal.SIGCONT)

        # I expect more workers while it lasts, and one when it is over, which nothing interrupts.
        troubles: set[str] = set()

        def over() -> bool:
            troubles.update(str(one) for one in ledger.redis.hvals(ledger.keys.job(job.id)[3]))
            return client.status(job.id).ended

        wait_until(over, 180, "the job to end")
        wait_until(
            lambda: sum(stack.supervisor.pid(name) is not None for name in NODES) == 1, 120, "one worker to be left"
        )
        wait_until(lambda: len(read_fleet(ledger).workers) == 1, 60, "one heartbeat")

        # Every image has one row, every shard one commit, and no attempt was counted.
        status = check_complete(client, job.id, keys)
        commits = list(iter_commits(store, job.id))
        assert sorted(commit.shard for commit in commits) == list(range(status.shards.total))
        assert not [trouble for trouble in troubles if "dead" in trouble or "faults" in trouble]

        # The worker that is left still works.
        again = client.classify(f"s3://{store.bucket}/photos/", model="efficientnet-lite0", shard_size=512)
        wait_until(lambda: client.status(again.id).ended, 120, "a second job to end")
        assert client.status(again.id).state == "succeeded"
