"""Workers differ in the models that they load: a job goes to one that may, and says so if none is alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from contract.jobs.commits import iter_commits
from contract.jobs.status import Status
from contract.models.registry import Model
from deploy.local.supervisor import Service
from producer import Client
from tests.mill import Mill
from tests.programs import Redness, export
from tests.waiting import wait_until

BUILT_IN = "efficientnet-lite0"


def pools(service: Service) -> Service:
    """Worker 0 takes no programs; worker 1 loads nothing but one family of names."""
    told = {"worker-0": {"IMAGEMILL_PROGRAMS": "off"}, "worker-1": {"IMAGEMILL_MODELS": "red*"}}
    return replace(service, env={**service.env, **told[service.name]})


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    data = tmp_path_factory.mktemp("pools")
    with Mill(data, workers=2, altered=pools, worker_wait_seconds=8.0).running() as made:
        yield made


@pytest.fixture(scope="module")
def client(mill: Mill) -> Client:
    return mill.client


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(24):
        Image.new("RGB", (16, 16), (10 * number, 0, 0)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def program(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Model:
    file = export(Redness().eval(), tmp_path_factory.mktemp("program") / "redness.pt2")
    return client.push_model("redness", file, labels=("red", "other"), size=8, license="MIT")


def ran_on(client: Client, job: Status) -> set[str]:
    assert job.state == "succeeded", job.reason
    return {commit.worker.partition("@")[0] for commit in iter_commits(client.backend.store, job.id)}


def test_a_job_goes_to_the_workers_that_may_load_its_model(
    mill: Mill, client: Client, photos: Path, program: Model
) -> None:
    # If I use a program, I expect the worker that takes none to get nothing of it,
    job = mill.finished(client.classify(photos, model=program.ref, shard_size=2).id)
    assert ran_on(client, job) == {"worker-1"}
    # and of another model the worker that has only the other names.
    job = mill.finished(client.classify(photos, model=BUILT_IN, shard_size=2).id)
    assert ran_on(client, job) == {"worker-0"}


def test_what_no_live_worker_may_load_is_said_and_goes_on_when_one_may(
    mill: Mill, client: Client, photos: Path, program: Model
) -> None:
    # Given a fleet without the worker that takes programs, if I use one, I expect the job to say what it lacks,
    mill.supervisor.stop_service("worker-1")
    wait_until(lambda: len(client.workers()) == 2, 30, "the worker that takes programs to leave")
    id = client.classify(photos, model=program.ref, shard_size=6).id
    said = wait_until(lambda: client.status(id).waiting_for, 30, "the job to say what it waits for")
    assert f"which may load {program.ref} (worker-0@" in said
    assert "no programs (IMAGEMILL_PROGRAMS is off)" in said

    # to end with that after a while,
    ended = mill.finished(id)
    assert ended.state == "failed" and f"which may load {program.ref}" in str(ended.reason)

    # and to go on with a worker that may.
    mill.supervisor.start("worker-1")
    wait_until(lambda: len(client.workers()) == 3, 60, "the worker that takes programs to be back")
    client.resume(id)
    again = mill.finished(id)
    assert ran_on(client, again) == {"worker-1"}
    assert (again.ok, again.errors) == (24, 0)
