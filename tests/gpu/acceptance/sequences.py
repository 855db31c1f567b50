"""Sequences on the device: as on a CPU, the same twice, and copied while the batch before computes."""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.gpu.acceptance import machine
from tests.gpu.acceptance.report import Report
from worker.engine import select
from worker.engine.pipeline import padded
from worker.engine.programs.graph import SequenceGraph, load_family
from worker.engine.runtimes.sequence_runtime import SequenceRuntime
from worker.engine.types import ModelSpec
from worker.zoo.rnn import Rnn

_STAGE = "sequences"
_CLASSES, _FRAMES = 50, 16


def throughput(report: Report, device: torch.device, folder: Path, count: int) -> None:
    """Compare with a CPU, then measure forward passes and the whole from memory of the host to its answers."""
    side = 112 if device.type == "cuda" else 32
    spec = _spec(folder, side)
    draws = np.random.default_rng(4)
    clips = [draws.integers(0, 256, (1 + n % _FRAMES, side, side, 3), np.uint8) for n in range(64)]
    wanted = _answers(_runtime(spec, torch.device("cpu"), "fp32", folder), clips)
    for precision in ("fp32", "bf16") if report.about["bf16"] else ("fp32",):
        found = _answers(_runtime(spec, device, precision, folder), clips)
        apart = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        most = 1e-3 if precision == "fp32" else 0.1
        report.check(f"sequences, {precision}: as on a CPU", apart <= most, f"{apart:.2g} of the largest logit")
        again = _answers(_runtime(spec, device, precision, folder), clips)
        report.check(f"sequences, {precision}: the same twice", bool((again == found).all()))
        runtime = _runtime(spec, device, precision, folder)
        size = runtime.batch_size
        whole = [draws.integers(0, 256, (_FRAMES, side, side, 3), np.uint8) for _ in range(size)]
        forward = _forward_rate(spec, device, precision, whole)
        report.figure(_STAGE, f"forward, {precision}, batches of {size}, sequences/s", forward)
        with closing(runtime):
            # Eight batches that lanes have decoded, over and over: what is copied is what an engine hands on.
            ready = [padded(whole, runtime.allocate) for _ in range(8)]
            runtime.submit(*ready[0]).result(300)
            began = time.perf_counter()
            futures = [runtime.submit(*ready[n % 8]) for n in range(max(2, count // size))]
            for future in futures:
                future.result(300)
            rate = size * len(futures) / (time.perf_counter() - began)
        report.figure(_STAGE, f"from the host's memory to answers, {precision}, sequences/s", rate)
        report.figure(_STAGE, f"the same, {precision}, share of forward", rate / forward)
        if device.type == "cuda":
            report.check(f"sequences, {precision}: copies hide behind forward passes", rate >= 0.9 * forward)


def _spec(folder: Path, side: int) -> ModelSpec:
    torch.manual_seed(6)
    config: dict[str, Any] = {"classes": _CLASSES, "channels": 3, "size": side, "hidden": 256}
    path = folder / "sequences.safetensors"
    save_file(Rnn(**config).state_dict(), path)
    return ModelSpec(
        family="rnn",
        weights=path,
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=side,
        mean=127.5,
        std=127.5,
        classes=_CLASSES,
        sequences=True,
        config=config,
    )


def _runtime(spec: ModelSpec, device: torch.device, precision: str, folder: Path) -> SequenceRuntime:
    batch = 0 if device.type == "cuda" else 4
    found = select.load(
        spec, device=str(device), precision=precision, threads=2, batch_size=batch, cache_dir=folder / "cache"
    )
    assert isinstance(found, SequenceRuntime)
    return found


def _answers(runtime: SequenceRuntime, clips: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    with closing(runtime):
        groups = [padded(clips[at : at + 4], runtime.allocate) for at in range(0, len(clips), 4)]
        # One after the other, so that the same ones share a batch each time.
        return np.concatenate([runtime.submit(*group).result(300).logits for group in groups])


def _forward_rate(spec: ModelSpec, device: torch.device, precision: str, clips: list[NDArray[np.uint8]]) -> float:
    graph = SequenceGraph(load_family(spec), mean=spec.mean, std=spec.std, channels=spec.channels).eval()
    graph.requires_grad_(False).on(device, precision)  # type: ignore[arg-type]
    frames, lengths = (torch.from_numpy(array).to(device) for array in padded(clips))
    with torch.inference_mode():
        return len(clips) / machine.timed(lambda: graph(frames, lengths), device)
