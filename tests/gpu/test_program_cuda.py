"""A `torch.export` program on the CUDA runtime, on machines that have such a device."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.programs import Redness, export
from worker.engine import select as runtimes
from worker.engine.programs.graph import build
from worker.engine.types import ModelSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_program_agrees_with_the_cpu(tmp_path: Path, precision: str) -> None:
    # Given a program that was exported on a CPU,
    path = export(Redness().eval(), tmp_path / "redness.pt2", size=32)
    spec = ModelSpec(
        family="program",
        weights=path,
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=32,
        mean=127.5,
        std=127.5,
        classes=2,
    )
    pixels = np.random.default_rng(1).integers(0, 256, (50, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        wanted = build(spec)(torch.from_numpy(pixels))[0].numpy()

    # if it runs on CUDA, in small submissions,
    runtime = runtimes.load(
        spec, device="cuda", precision=precision, threads=2, batch_size=16, cache_dir=tmp_path / "cache"
    )
    found = np.concatenate([runtime.submit(pixels[i : i + 7]).result(60).logits for i in range(0, 50, 7)])
    runtime.close()

    # I expect the same answers.
    assert np.abs(found - wanted).max() < (1e-3 if runtime.precision == "fp32" else 5e-2)
