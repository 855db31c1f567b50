"""Workers that were upgraded in place and cannot load their own code: they leave, and no job waits for ever."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from contract.backend.broker import make_app
from contract.backend.dispatch import waiting
from contract.keys.queues import QUEUE_CLASSIFY, TASK_RUN
from tests.mill import Mill, own_cache
from tests.waiting import wait_until
from worker.process.leaving import EXIT_UNFIT

MIXED = "mixed"  # as in tests.faults.mixed, which only a worker can import
RECIPE = ["epochs=1", "variant=classic", "batch_size=32", "precision=fp32", "size=16"]


def test_a_worker_that_cannot_load_its_code_leaves_and_the_job_ends_or_goes_on(
    tmp_path: Path, crops: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.2))
    cache = own_cache(tmp_path / "cache")
    with Mill(tmp_path, workers=1, app="tests.faults.mixed", cache_dir=cache).running() as mill:
        # Given a worker that labels, and whose modules of training are of another version,
        (cache / MIXED).write_text("worker.training.job")

        # I expect a training to end it with a status of its own, three times, and then to fail with one sentence.
        with caplog.at_level(logging.WARNING, "imagemill.supervisor"):
            mill.client.train("cnn", crops, name="mixed", settings=RECIPE, job="mixed")
            status = mill.finished("mixed")
            died = f"worker-0 died (exit status {EXIT_UNFIT})"
            wait_until(lambda: caplog.text.count(died) == 3, 30, "three workers to leave")
        assert status.state == "failed"
        assert status.reason is not None
        assert "On 3 workers" in status.reason and "cannot import name 'new' from 'contract.old'" in status.reason
        assert "`imagemill resume mixed`" in status.reason and "\n" not in status.reason

        # If the code is of one version after another has left, I expect the next attempt to do it.
        mill.client.resume("mixed")
        wait_until(lambda: mill.log("worker-0").count("Leaving") >= 4, 30, "a fourth to leave")
        (cache / MIXED).unlink()
        assert mill.finished("mixed").state == "succeeded"

        # A worker that cannot load what labels leaves before it takes a shard.
        caplog.clear()
        (cache / MIXED).write_text("worker.classify.shard")
        with caplog.at_level(logging.WARNING, "imagemill.supervisor"):
            mill.kill("worker-0")
            wait_until(lambda: died in caplog.text, 30, "the worker to leave")
        (cache / MIXED).unlink()
        wait_until(mill.ready, 30, "a worker")


def test_messages_of_older_versions_are_refused_or_taken_as_tickets(tmp_path: Path, crops: Path) -> None:
    with Mill(tmp_path, workers=1).running() as mill:
        # Given shards that wait, and in their queue only messages of earlier versions, of which the oldest name a task
        # that is gone, and the others a shard of a job, here of one that nobody knows,
        mill.supervisor.stop_service("worker-0")
        mill.client.classify(crops / "koala", model="efficientnet-lite0", shard_size=20, job="older")
        ledger = mill.client.backend.ledger
        wait_until(lambda: ledger.state("older") == "running", 30, "the plan")
        mill.supervisor.stop_service("controller")
        ledger.redis.delete(f"{ledger.keys.broker_prefix}{QUEUE_CLASSIFY}")
        app = make_app(mill.settings)
        for shard in range(5):
            app.send_task("imagemill.classify", args=["older", shard], queue=QUEUE_CLASSIFY, ignore_result=True)
        app.send_task(TASK_RUN, args=["gone", 7], queue=QUEUE_CLASSIFY, ignore_result=True)
        app.close()
        assert waiting(ledger, [QUEUE_CLASSIFY]) == {QUEUE_CLASSIFY: 6}

        # if a worker of this version begins, I expect it to refuse the oldest, to live,
        mill.supervisor.start_service("worker-0")
        wait_until(lambda: ledger.rejected() == {"unknown task": 5}, 60, "five refusals")

        # and to take the other one for a ticket, from which all the shards follow.
        wait_until(lambda: ledger.state("older") == "finalizing", 60, "the shards to be done")
        mill.supervisor.start_service("controller")
        assert mill.finished("older").state == "succeeded"
        assert mill.supervisor.pid("worker-0") is not None
