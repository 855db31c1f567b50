"""Workers differ: one has bf16, one has not. A job runs where it can, and in one numerics class where bytes count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contract.errors import InvalidInput
from contract.jobs import lifecycle
from contract.jobs.commits import iter_commits
from contract.jobs.numerics import read_class
from contract.jobs.specs import Generate
from contract.jobs.status import ShardCommit, Status
from producer import Client
from tests.mill import Mill
from tests.waiting import wait_until

GAN = "fashion-gan"
SMALL: dict[str, Any] = {"count": 96, "shard_size": 10}


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """Worker 0 has no bf16; worker 1 has, or takes the time to emulate it."""
    data = tmp_path_factory.mktemp("mixed")
    with Mill(data, workers=2, native_bf16=("off", "on"), worker_wait_seconds=3.0).running() as made:
        yield made


@pytest.fixture(scope="module")
def client(mill: Mill) -> Client:
    return mill.client


def commits(client: Client, job: Status) -> list[ShardCommit]:
    assert job.state == "succeeded", job.reason
    return list(iter_commits(client.backend.store, job.id))


def test_a_precision_that_one_worker_lacks_is_left_to_another(mill: Mill, client: Client) -> None:
    # If I ask for bf16, I expect every shard to end up where it can be had, at the first attempt.
    job = mill.finished(client.generate(GAN, precision="bf16", **SMALL).id)
    assert {(commit.precision, commit.worker.partition("@")[0]) for commit in commits(client, job)} == {
        ("bf16", "worker-1")
    }
    assert job.ok == 96


def test_the_bytes_of_a_job_come_from_one_class(mill: Mill, client: Client) -> None:
    # If I leave the precision to the workers, I expect the first shard to decide for all, and the bucket to keep it.
    job = mill.finished(client.generate(GAN, **SMALL).id)
    decided = read_class(client.backend.store, job.id)
    assert decided is not None and decided.device == "cpu"
    assert {commit.precision for commit in commits(client, job)} == {decided.precision}

    # and a verification of it to compute in the same class,
    check = mill.finished(client.verify(job.id, sample=16).id)
    assert {commit.precision for commit in commits(client, check)} == {decided.precision}
    assert check.metrics is not None and check.metrics["identical"] == 16


def test_a_mix_has_to_be_asked_for(mill: Mill, client: Client) -> None:
    # If any worker will do, I expect each commit to say what its shard ran in.
    job = mill.finished(client.generate(GAN, numerics="any", **SMALL).id)
    assert read_class(client.backend.store, job.id) is None
    ran_in = {"worker-0": "fp32", "worker-1": "bf16"}
    for commit in commits(client, job):
        assert commit.precision == ran_in[commit.worker.partition("@")[0]]


def test_what_no_live_worker_can_run_is_said_and_goes_on_when_one_can(mill: Mill, client: Client) -> None:
    # Given a fleet without bf16,
    mill.supervisor.stop_service("worker-1")
    wait_until(lambda: len(client.workers()) == 2, 30, "the worker with bf16 to leave")

    # if I ask for it, I expect to be told before anything is queued.
    with pytest.raises(InvalidInput, match=r"--precision: no live worker computes in bf16 \(worker-0@.*: cpu fp32\)"):
        client.generate(GAN, precision="bf16", job="refused", **SMALL)
    assert "refused" not in [job.id for job in client.jobs()]

    # If the job is there all the same, I expect it to end after a while, and say why,
    model = client.model(GAN)
    spec = Generate(
        id="waits",
        model=model.ref,
        weights_sha256=model.weights.sha256,
        classes=(0, 1),
        count=20,
        shard_size=10,
        precision="bf16",
        output=f"s3://{client.backend.store.bucket}/jobs/waits/out/",
    )
    lifecycle.submit(client.backend, spec)
    ended = mill.finished("waits")
    assert ended.state == "failed" and "No live worker can run waits, which needs any device/bf16" in str(ended.reason)

    # and with a worker that can, to go on.
    mill.supervisor.start("worker-1")
    wait_until(lambda: len(client.workers()) == 3, 60, "the worker with bf16 to be back")
    client.resume("waits")
    again = mill.finished("waits")
    assert {commit.precision for commit in commits(client, again)} == {"bf16"}
    assert (again.ok, again.errors) == (20, 0)
