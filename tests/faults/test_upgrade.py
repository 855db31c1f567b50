"""Workers that were upgraded in place and cannot load their own code: they leave, and no job waits for ever."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.mill import Mill
from tests.waiting import wait_until
from worker.process import EXIT_UNFIT

pytestmark = pytest.mark.slow

MIXED = "mixed"  # as in tests.faults.mixed, which only a worker can import
RECIPE = ["epochs=1", "variant=classic", "batch_size=32", "precision=fp32", "size=16"]


def test_a_worker_that_cannot_load_its_code_leaves_and_the_job_ends_or_goes_on(
    tmp_path: Path, crops: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.2))
    cache = tmp_path / "cache"
    cache.mkdir()
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
        wait_until(lambda: mill.log("worker-0").count("Leaving") == 4, 30, "a fourth to leave")
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
