"""What is killed, cut or wiped in the middle of a job: each item is one row in the end, and the counters agree.

Every test causes its fault while the job runs, and counts rows afterwards.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contract.jobs.status import Status
from contract.keys.queues import TASK_RUN
from tests.faults.conftest import SHARD
from tests.mill import Mill, check_complete
from tests.paced_mill import PacedMill
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
LONG = 160  # a shard of more than a second, to have tasks in flight
SLOW = 0.05  # seconds that an image takes longer: no job ends before `finished`, whatever the test waits for


def begin(mill: PacedMill, folder: Path, shard_size: int = SHARD) -> str:
    """A job that is running, and goes on at full speed once it is waited for."""
    mill.slow(SLOW)
    job = mill.client.classify(folder, model=MODEL, shard_size=shard_size).id
    mill.begun(job, 1)
    return job


def begins(mill: Mill, job: str) -> Counter[int]:
    """How often each shard of a job was begun, by all workers together."""
    found = [re.findall(rf"Shard (\d+) of {job} begins", mill.log(name)) for name in mill.workers]
    return Counter(int(shard) for shards in found for shard in shards)


def received(mill: Mill) -> Counter[str]:
    """How often each message has come, by its task id, to all workers together."""
    found = [re.findall(rf"Task {TASK_RUN}\[(\S+)\] received", mill.log(name)) for name in mill.workers]
    return Counter(id for ids in found for id in ids)


def holders(mill: Mill, job: str) -> list[str]:
    """Which worker holds each leased shard of a job: `worker-0@host:…`, followed by the rest of its lease."""
    ledger = mill.client.backend.ledger
    return list(ledger.hash(ledger.keys.job(job)[2]).values())


def connections_lost(mill: Mill) -> list[int]:
    return [mill.log(name).count("Connection to broker lost") for name in mill.workers]


def pids(mill: Mill) -> dict[str, int | None]:
    return {name: mill.supervisor.pid(name) for name in mill.workers}


def test_a_worker_is_killed(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """SIGKILL: its shards are taken up again within a lease and a tick."""
    # Given a worker that holds a shard, and stands still, so that it cannot finish it while the test looks,
    wait_until(mill.ready, 30, "the workers")
    mill.slow(SLOW)
    job = mill.client.classify(folder, model=MODEL, shard_size=LONG).id

    def stopped_with_a_shard() -> bool:
        mill.pause("worker-0")
        if any(lease.startswith("worker-0@") for lease in holders(mill, job)):
            return True
        mill.go_on("worker-0")
        return False

    wait_until(stopped_with_a_shard, 60, "worker-0 to have a shard")

    # if it is killed, I expect the job to end as if it had not been.
    mill.kill("worker-0")
    killed_at = time.monotonic()
    mill.finished(job)
    status = check_complete(mill.client, job, keys)
    assert status.state == "succeeded"
    alone = len(keys) / 20  # seconds: a generous bound of what one core needs for all of it
    assert time.monotonic() - killed_at < mill.settings.lease_seconds + mill.settings.reconcile_seconds + alone


def test_a_worker_is_told_to_go(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """SIGTERM: it ends its shards first, so that none is begun twice."""
    wait_until(mill.ready, 30, "the workers")
    job = begin(mill, folder)
    mill.kill("worker-1", signal.SIGTERM)
    mill.finished(job)
    check_complete(mill.client, job, keys)
    assert set(begins(mill, job).values()) == {1}


def test_redis_is_killed_and_comes_back(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """Workers live through it, with their tasks in flight."""
    wait_until(mill.ready, 30, "the workers")
    job = begin(mill, folder, LONG)
    before = pids(mill)
    mill.kill("redis")
    mill.finished(job)
    check_complete(mill.client, job, keys)
    assert pids(mill) == before, "no worker died of it"


def test_redis_is_away_for_a_while(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """Longer than a shard takes: tasks end while there is nobody to acknowledge them to."""
    wait_until(mill.ready, 30, "the workers")
    job = begin(mill, folder, LONG)
    before = pids(mill)
    mill.supervisor.stop_service("redis")
    mill.fast()
    threading.Event().wait(4)  # the outage itself
    mill.supervisor.start_service("redis")
    mill.finished(job)
    check_complete(mill.client, job, keys)
    assert pids(mill) == before, "no worker died of it"


@pytest.mark.parametrize(
    ("begins_to", "stops"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
        (("ACL", "SETUSER", "default", "-brpop"), ("ACL", "SETUSER", "default", "+brpop")),
    ],
    ids=["a replica", "too few replicas", "a user without rights"],
)
def test_redis_refuses_for_a_while(
    mill: PacedMill, folder: Path, keys: list[str], begins_to: tuple[str, ...], stops: tuple[str, ...]
) -> None:
    """As during a failover, or a change of the ACL: no process ends, and no image is blamed."""
    wait_until(mill.ready, 30, "the workers")
    job = begin(mill, folder, LONG)
    before = pids(mill) | {"controller": mill.supervisor.pid("controller")}
    redis = mill.client.backend.ledger.redis
    redis.execute_command(*begins_to)
    try:
        mill.fast()
        threading.Event().wait(mill.settings.lease_seconds + 2)  # the outage itself
    finally:
        redis.execute_command(*stops)
    mill.finished(job)
    status = check_complete(mill.client, job, keys)
    assert (status.state, status.errors) == ("succeeded", 0)
    assert pids(mill) | {"controller": mill.supervisor.pid("controller")} == before, "no process died of it"


def test_redis_is_wiped(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """FLUSHALL: the job goes on by itself, from the bucket."""
    job = begin(mill, folder)
    mill.client.backend.ledger.redis.flushall()
    mill.finished(job)
    assert check_complete(mill.client, job, keys).state == "succeeded"


def test_redis_is_wiped_and_the_user_is_impatient(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """`resume` after FLUSHALL, while the workers are still at it."""
    job = begin(mill, folder)
    mill.client.backend.ledger.redis.flushall()
    mill.client.resume(job)
    mill.finished(job)
    check_complete(mill.client, job, keys)


def test_every_connection_is_cut(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """CLIENT KILL: workers live, and no second copy of a running shard starts."""
    wait_until(mill.ready, 30, "the workers")
    came = received(mill)  # of earlier tests
    job = begin(mill, folder, LONG)
    before, lost = pids(mill), connections_lost(mill)
    ledger = mill.client.backend.ledger
    cut_at = float("-inf")

    def cut() -> bool:
        nonlocal cut_at
        if time.monotonic() - cut_at > 2:  # time to come back, and to renew a lease, before the next cut
            cut_at = time.monotonic()
            for kind in ("normal", "pubsub"):
                ledger.redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            mill.fast()  # a worker notices when it has a slot free, and a shard that is slow for long is copied
        return all(now > then for now, then in zip(connections_lost(mill), lost, strict=True))

    wait_until(cut, 30, "each worker to lose its connection")
    mill.finished(job)
    check_complete(mill.client, job, keys)
    assert pids(mill) == before
    assert set(begins(mill, job).values()) == {1}
    assert set((received(mill) - came).values()) == {1}, "no message came twice"


def test_there_are_far_more_tickets_than_shards(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """A surplus ticket finds nothing, and no shard runs twice."""
    job = begin(mill, folder)
    mill.client.backend.ledger.send_tickets("classify", 5 * len(keys) // SHARD)
    mill.finished(job)
    check_complete(mill.client, job, keys)
    assert set(begins(mill, job).values()) == {1}


def test_all_messages_are_lost(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """The queue is deleted and the ledger is not: the reconciler misses them."""
    job = begin(mill, folder)
    ledger = mill.client.backend.ledger
    ledger.redis.delete(f"{ledger.keys.broker_prefix}classify")
    mill.finished(job)
    check_complete(mill.client, job, keys)


def test_the_controller_is_killed(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    job = begin(mill, folder)
    mill.kill("controller")
    mill.finished(job)
    check_complete(mill.client, job, keys)


def test_the_store_is_away_for_longer_than_a_lease(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """The workers wait; nothing counts against a shard."""
    job = begin(mill, folder)
    mill.supervisor.stop_service("s3")
    threading.Event().wait(2 * mill.settings.lease_seconds)  # the outage itself
    mill.supervisor.start_service("s3")
    mill.finished(job)
    status = check_complete(mill.client, job, keys)
    assert (status.state, status.errors) == ("succeeded", 0)


def test_a_job_is_canceled_and_resumed(mill: PacedMill, folder: Path, keys: list[str]) -> None:
    """Cancel stops within one batch; resume does what is left, and nothing twice."""
    wait_until(mill.ready, 30, "the workers")
    job = begin(mill, folder, shard_size=128)
    mill.client.cancel(job)

    def idle() -> bool:
        return all(w.fields.get("shards", "0") == "0" for w in mill.client.workers())

    wait_until(idle, 10, "the workers to let go")
    canceled = mill.client.status(job)
    assert canceled.state == "canceled"
    assert canceled.done < len(keys)
    mill.client.resume(job)
    mill.finished(job)
    assert check_complete(mill.client, job, keys).state == "succeeded"


def test_a_shard_outlasts_the_visibility_timeout(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, keys: list[str]
) -> None:
    """No book is kept of its ticket, so none is handed out again."""
    with PacedMill(tmp_path_factory.mktemp("mill"), workers=1, visibility_timeout=1).running() as mill:
        job = begin(mill, folder, shard_size=640)
        mill.slow(5)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 3, 10, "the timeout to have passed thrice")
        assert mill.client.status(job).shards.done == 0
        mill.finished(job)
        check_complete(mill.client, job, keys)
        assert set(received(mill).values()) == {1}
        assert set(begins(mill, job).values()) == {1}


def test_an_image_that_kills_its_worker_stands_alone_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three kills, then the shard is bisected until the image is an error row and the others have labels."""
    monkeypatch.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.2))  # it dies six times
    folder = tmp_path_factory.mktemp("poisoned")
    for n, path in enumerate(list(photos.values())[:4]):
        (folder / f"{n}.jpg").write_bytes(path.read_bytes())
    (folder / "2.jpg").write_bytes(b"poison")
    short: dict[str, Any] = {"lease_seconds": 1.0, "reconcile_seconds": 0.5}
    data = tmp_path_factory.mktemp("mill")
    with Mill(data, workers=1, app="tests.faults.poison", **short).running() as mill:
        job = mill.client.classify(folder, model=MODEL, shard_size=4, max_errors="1").id
        mill.finished(job, timeout=150)
        status: Status = check_complete(mill.client, job, [f"{n}.jpg" for n in range(4)])
        assert (status.ok, status.errors) == (3, 1)
        (bad,) = mill.client.errors(job)
        assert (bad["key"], bad["error_code"]) == ("2.jpg", "worker_killed")
