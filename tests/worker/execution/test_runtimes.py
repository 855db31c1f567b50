"""A model that the only runtime of a worker cannot run goes to a worker that has another."""

from __future__ import annotations

import pytest

from contract.backend.dispatch import ready
from contract.errors import RuntimeUnsuited
from contract.jobs.lifecycle import Backend, status
from contract.keys.queues import QUEUE_CLASSIFY
from tests.waiting import wait_until
from tests.worker.conftest import FakeModels, Jobs, Runners

UNSUITED = RuntimeUnsuited("OpenVINO cannot convert it.")


def test_a_model_that_openvino_cannot_run_is_left_to_a_worker_with_torch(
    backend: Backend, runner_of: Runners, job: Jobs
) -> None:
    # Given a worker that must use OpenVINO, if it is given a job that it cannot run,
    job(b"\x01", b"\x02", shard_size=1)
    runner_of("one", FakeModels(error=UNSUITED), runtimes=("openvino",)).run("job", 0)

    # I expect the job to need torch from now on, and the shard to wait a little, as for a service, and be done there.
    assert ready(backend.ledger, QUEUE_CLASSIFY) == {"runtime=torch": 2}
    assert status(backend, "job").state == "running"
    other = runner_of("two", runtimes=("torch",))

    def done() -> bool:
        for shard in (0, 1):
            other.run("job", shard)
        return status(backend, "job").state == "finalizing"

    wait_until(done, 30, "the other worker to run both shards")
    assert (status(backend, "job").ok, status(backend, "job").errors) == (2, 0)


@pytest.mark.parametrize("runtimes", [("torch",), ("openvino", "torch")])
def test_a_pushed_program_that_says_so_of_torch_ends_its_job(
    backend: Backend, runner_of: Runners, job: Jobs, runtimes: tuple[str, ...]
) -> None:
    # A confined child says what it likes: it must not keep a job waiting for ever.
    job(b"\x01")
    runner_of("one", FakeModels(error=UNSUITED), runtimes=runtimes).run("job", 0)
    ended = status(backend, "job")
    assert (ended.state, ended.reason) == ("failed", str(UNSUITED))
