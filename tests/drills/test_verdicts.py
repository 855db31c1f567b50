"""No false verdict: a runtime that raises for a minute, and workers that are killed all the time."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.jobs.status import Status
from contract.models.registry import Registry
from tests.mill import Mill, check_complete
from tests.paced_mill import PacedMill
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
RECIPE = ["epochs=6", "variant=classic", "batch_size=32", "precision=fp32", "size=16", "learning_rate=0.02"]
Figures = Callable[..., None]


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers again at once, as a cluster with spare machines does."""
    monkeypatch.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.5))


def folder_of(path: Path, photos: dict[str, Path], count: int) -> tuple[Path, list[str]]:
    path.mkdir()
    files = list(photos.values())
    keys = [f"{n:05d}.jpg" for n in range(count)]
    for n, key in enumerate(keys):
        (path / key).symlink_to(files[n % len(files)])
    return path, keys


def test_a_runtime_raises_in_the_middle_of_a_job(
    tmp_path: Path, photos: dict[str, Path], long: bool, figures: Figures
) -> None:
    images, seconds = (10_000, 60.0) if long else (200, 3.0)
    folder, keys = folder_of(tmp_path / "photos", photos, images)
    with PacedMill(tmp_path, workers=2, app="tests.sick").running() as mill:
        cache = mill.settings.cache_dir
        mill.slow(0.0 if long else 0.05)
        job = mill.client.classify(folder, model=MODEL, shard_size=128 if long else 16, max_errors="0").id
        mill.begun(job, images // 10)
        (cache / "sick").write_text("raises")
        threading.Event().wait(seconds)  # the fault itself
        (cache / "sick").unlink()
        status = mill.finished(job, timeout=1800)
        check_complete(mill.client, job, keys)
        logs = [mill.log(name) for name in mill.workers]
        figures(
            images=images,
            raised_for=f"{seconds:.0f} s",
            false_verdicts=status.errors,
            self_tests_failed=sum(text.count("This worker is unfit") for text in logs),
            workers_started_again=sum(text.count("Leaving, to be started again") for text in logs),
        )
        assert (status.state, status.errors) == ("succeeded", 0)


def test_workers_are_killed_all_the_time(
    tmp_path: Path, photos: dict[str, Path], crops: Path, long: bool, figures: Figures
) -> None:
    every, most, images = (30.0, 40, 2000) if long else (2.0, 3, 200)
    folder, keys = folder_of(tmp_path / "photos", photos, images)
    times: dict[str, Any] = {"checkpoint_seconds": 2.0 if long else 0.2, "reconcile_seconds": 1.0, "lease_seconds": 2.0}
    with Mill(tmp_path, workers=2, **times).running() as mill:
        # Given what a labelling and a training end with where nothing happens,
        calm = _both(mill, folder, crops, "calm")

        # if workers are killed all the time, every other time four seconds after they were told,
        rounds = 0
        ends: list[tuple[Status, str, dict[str, Any]]] = []
        began = time.monotonic()
        with _killing(mill, every, most, notice=4.0 if long else 1.0) as kills:
            while len(kills) < most:
                rounds += 1
                ends.append(_both(mill, folder, crops, f"round-{rounds}"))

        # I expect each to end, with the same labels and the same weights.
        figures(
            seconds=round(time.monotonic() - began),
            kills=len(kills),
            with_notice=kills.count("notice"),
            jobs=2 * rounds,
            images=images * rounds,
            false_errors=sum(status.errors for status, _, _ in ends),
            other_weights=sum(weights != calm[1] for _, weights, _ in ends),
            other_labels=sum(labels != calm[2] for _, _, labels in ends),
        )
        for n, (status, weights, labels) in enumerate(ends, 1):
            assert (status.state, status.errors) == ("succeeded", 0)
            check_complete(mill.client, f"round-{n}", keys)
            assert weights == calm[1]
            assert labels == calm[2]


def _both(mill: Mill, folder: Path, crops: Path, name: str) -> tuple[Status, str, dict[str, Any]]:
    """Label and train at the same time; return the end of the labelling, the sha256 of the weights, and the labels."""
    mill.client.train("cnn", crops, name=f"model-{name}", settings=RECIPE, job=f"train-{name}")
    mill.client.classify(folder, model=MODEL, shard_size=64, job=name, max_errors="0")
    labelled = mill.finished(name, timeout=600)
    trained = mill.finished(f"train-{name}", timeout=600)
    assert (trained.state, trained.reason) == ("succeeded", None)
    weights = Registry(mill.client.backend.store).get(str(trained.model)).weights.sha256
    return labelled, weights, {row["key"]: row["label"] for row in mill.client.results(name)}


@contextmanager
def _killing(mill: Mill, every: float, most: int, notice: float) -> Iterator[list[str]]:
    """SIGKILL a worker every few seconds, every other time after SIGTERM; yield what was done so far, `most` in all."""
    done: list[str] = []
    stop = threading.Event()
    rng = random.Random(0)

    def run() -> None:
        while len(done) < most and not stop.wait(every):
            name = rng.choice(mill.workers)
            told = len(done) % 2 == 1
            if told:
                mill.kill(name, signal.SIGTERM)
                stop.wait(notice)
            mill.kill(name)
            done.append("notice" if told else "kill")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
        wait_until(mill.ready, 60, "the workers")
