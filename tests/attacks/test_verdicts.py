"""A worker that fails is no reason to blame an image: only what fails alone, in two processes that are well, is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.mill import Mill, check_complete
from tests.sick_mill import many, sick_mill
from tests.waiting import wait_until
from worker.process.leaving import EXIT_AFRESH

MODEL = "efficientnet-lite0"
IMAGES = 96


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """Two workers whose runtime falls ill when it is told to."""
    with sick_mill(tmp_path_factory.mktemp("mill")) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, Path]) -> Path:
    return many(tmp_path / "photos", photos, IMAGES)


def test_a_runtime_that_raises_for_a_while_makes_no_error_row(
    mill: Mill, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sick = mill.settings.cache_dir / "sick"

    # Given a job on two workers, slow ones, so that it is not over before it is disturbed, if the runtime of both
    # begins to raise in the middle of it,
    sick.write_text("slow")
    with caplog.at_level(logging.WARNING, "imagemill.supervisor"):
        job = mill.client.classify(folder, model=MODEL, shard_size=8, max_errors="0").id
        mill.begun(job, 1)
        sick.write_text("raises")
        wait_until(lambda: f"exit status {EXIT_AFRESH}" in caplog.text, 60, "a worker to leave")

    # I expect them to say so, and to blame nothing,
    wait_until(lambda: any(w.fields.get("unfit") for w in mill.client.workers()), 60, "a worker to say it is unfit")
    assert mill.client.status(job).errors == 0

    # and the job to end as it would have when the runtime is well again.
    sick.unlink()
    mill.finished(job)
    status = check_complete(mill.client, job, [f"{n:04d}.jpg" for n in range(IMAGES)])
    assert (status.state, status.errors) == ("succeeded", 0)
    said = [mill.log(name) for name in mill.workers]
    assert sum(text.count("This worker is unfit: a known good image fails on it") for text in said) < 60, "no hot loop"


def test_an_image_on_which_a_healthy_runtime_raises_is_one_row(mill: Mill, folder: Path) -> None:
    wait_until(mill.ready, 60, "the workers")
    (folder / "0005.jpg").unlink()
    Image.new("RGB", (64, 64), "gray").save(folder / "0005.jpg")

    # Given an image on which the runtime raises, I expect that one to be a row with a code that says what happened,
    job = mill.client.classify(folder, model=MODEL, shard_size=32, max_errors="1").id
    mill.finished(job)
    status = check_complete(mill.client, job, [f"{n:04d}.jpg" for n in range(IMAGES)])
    assert (status.state, status.errors) == ("succeeded", 1)
    (bad,) = mill.client.errors(job)
    assert (bad["key"], bad["error_code"]) == ("0005.jpg", "inference_failed")
    assert "RuntimeError: no kernel for an image of one shade" in bad["error_message"]

    # after two workers have tried it.
    tried = [f"Shard 0 of {job}: 1 images failed alone" in mill.log(name) for name in mill.workers]
    assert any(tried), "the first only says so"
    begun = [f"Shard 0 of {job} begins" in mill.log(name) for name in mill.workers]
    assert all(begun)
