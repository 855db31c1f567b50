"""The peers of a bench label every photo once."""

from __future__ import annotations

import importlib.util
import json
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.models.registry import Preprocess
from worker.bench import peers
from worker.bench.crops import crops
from worker.engine.types import Output

PHOTOS = Path(__file__).parents[3] / "deploy" / "photos"
HOW = Preprocess(size=32, mean=127.0, std=128.0)


class Brightness:
    """A runtime of six classes, whose logits come from the mean of the pixels."""

    name, device, precision, batch_size, lanes = "fake", "cpu", "fp32", 64, 1

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Output]:
        means = pixels.reshape(len(pixels), -1).mean(1)
        done: Future[Output] = Future()
        done.set_result(Output((means[:, None] * np.arange(6)).astype(np.float32), np.zeros((len(pixels), 1), "f4")))
        return done


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    (tmp_path / "photos").mkdir()
    return crops(PHOTOS, 40, tmp_path / "photos")


def check(lines: list[str], photos: list[Path]) -> None:
    rows = [json.loads(line) for line in lines]
    assert sorted(row["key"] for row in rows) == sorted(path.name for path in photos)
    assert all(row["top_k"] == [5, 4, 3, 2, 1] and (row["width"], row["height"]) == (500, 375) for row in rows)


def made(photos: list[Path], tmp_path: Path) -> dict[str, Any]:
    runtime: Any = Brightness()
    return peers.peers(photos, runtime, partial(Brightness), HOW, tmp_path)  # type: ignore[arg-type]


def test_the_dataloader_labels_every_photo_at_each_run(photos: list[Path], tmp_path: Path) -> None:
    step = made(photos, tmp_path)["peer_dataloader"]
    for _ in range(2):
        assert step() > 0
        check((tmp_path / "dataloader.jsonl").read_text().splitlines(), photos)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray warns of itself
def test_ray_labels_every_photo(photos: list[Path], tmp_path: Path) -> None:
    try:
        assert made(photos, tmp_path)["peer_ray"]() > 0
    finally:
        peers.close()
    rows = [json.loads(line) for path in (tmp_path / "ray").iterdir() for line in path.read_text().splitlines()]
    check([row["line"] for row in rows], photos)
