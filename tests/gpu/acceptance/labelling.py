"""Labels on the device: right in each precision, right when memory runs out, and fed by decoding threads."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.models.registry import Preprocess
from tests.gpu.acceptance import machine
from tests.gpu.acceptance.report import Report
from worker.engine import select
from worker.engine.arithmetic import settle
from worker.engine.images import decoders
from worker.engine.pipeline import Engine
from worker.engine.programs.graph import build
from worker.engine.runtimes.batcher import Batcher
from worker.engine.runtimes.torch_runtime import CpuLaunch, CudaLaunch, TorchRuntime
from worker.engine.types import ModelSpec, Runtime

HOW = Preprocess(size=224, crop=0.875, interpolation="bicubic", mean=127.0, std=128.0)
_NO_LIMIT = 2**62


def decode_in(where: str) -> None:
    """Decode in a process for each thread, or in the thread."""
    decoders.configure(children=where == "process", seconds=60, max_pixels=10**9)


def decoded(files: Sequence[bytes], threads: int) -> NDArray[np.uint8]:
    """Decode JPEG files on threads, uint8 [n, 224, 224, 3]."""

    def one(data: bytes) -> NDArray[np.uint8]:
        return decoders.open_item(data, HOW, max_pixels=_NO_LIMIT, frames=0).pixels

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(one, files, chunksize=16)))


def logits_of(runtime: Runtime, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = runtime.batch_size
    futures = [runtime.submit(pixels[at : at + size]) for at in range(0, len(pixels), size)]
    return np.concatenate([future.result(300).logits for future in futures])


def correctness(report: Report, device: torch.device, spec: ModelSpec, pixels: NDArray[np.uint8], cache: Path) -> None:
    """Compare with a CPU in fp32, and run out of memory."""
    stage = "correctness"
    with torch.inference_mode():
        graph = build(spec)
        wanted = np.concatenate([graph(torch.from_numpy(p))[0].numpy() for p in np.array_split(pixels, 8)])
    surer = probabilities(wanted).max(1) > 0.5
    precisions = ("fp32", "bf16") if report.about["bf16"] else ("fp32",)
    for precision in precisions:
        with closing(load(spec, device, precision, cache)) as runtime:
            found = logits_of(runtime, pixels)
            equal = found.argmax(1) == wanted.argmax(1)
            report.figure(stage, f"{precision}, top-1 as on the CPU", float(equal.mean()))
            report.figure(stage, f"{precision}, largest difference of a logit", float(np.abs(found - wanted).max()))
            report.check(
                f"{precision}: top-1 as on the CPU, where that is surer than 0.5",
                bool(equal[surer].mean() >= 0.995),
                f"{equal[surer].mean():.2%} of {surer.sum()}",
            )
            again = logits_of(runtime, pixels)
            report.check(f"{precision}: the same twice", bool((again == found).all()))
            with closing(load(spec, device, precision, cache)) as second:
                beside = logits_of(second, pixels)
            report.check(f"{precision}: the same from two runtimes at once", bool((beside == found).all()))
    _no_room(report, device, spec, pixels[:48], wanted[:48])
    if device.type == "cuda":
        _really_no_room(report, device, spec, pixels[:256], cache)


def _no_room(
    report: Report, device: torch.device, spec: ModelSpec, pixels: NDArray[np.uint8], wanted: NDArray[np.float32]
) -> None:
    """A device with room for one row: injected, so that it is exact."""
    graph = build(spec).on(device, "fp32")

    def tiny(batch: Tensor) -> tuple[Tensor, Tensor]:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("injected")
        with torch.inference_mode():
            return graph(batch)

    launch = CudaLaunch(tiny, device, (32, 224, 224, 3)) if device.type == "cuda" else CpuLaunch(tiny, 32)
    batcher = Batcher(launch, batch_size=32, depth=2 if device.type == "cuda" else 1)
    found = np.concatenate([batcher.submit(pixels[at : at + 24]).result(300).logits for at in (0, 24)])
    batcher.close()
    same = bool((found.argmax(1) == wanted.argmax(1)).mean() > 0.95)
    report.check("out of memory down to one row", batcher.batch_size == 1 and same, f"batches of {batcher.batch_size}")


def _really_no_room(
    report: Report, device: torch.device, spec: ModelSpec, pixels: NDArray[np.uint8], cache: Path
) -> None:
    """Take nearly all memory of the device, and let go of it later."""
    with closing(load(spec, device, "fp32", cache)) as runtime:
        wanted = logits_of(runtime, pixels)
        full = runtime.batch_size
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(device)[0]
        filler = torch.empty(max(1, free - 200 * 2**20), dtype=torch.uint8, device=device)
        found = logits_of(runtime, pixels[:full])
        shrunk = runtime.batch_size
        del filler
        torch.cuda.empty_cache()
        same = bool((found.argmax(1) == wanted[:full].argmax(1)).all())
        report.check("a device that is nearly full halves the batch", shrunk < full and same, f"{full} → {shrunk}")
    before = torch.cuda.memory_allocated(device)
    for _ in range(3):
        load(spec, device, "fp32", cache).close()
    torch.cuda.synchronize(device)
    left = torch.cuda.memory_allocated(device) - before
    report.check("a model that is closed gives its memory back", left < 2**20, f"{left:,} bytes kept")


def throughput(
    report: Report, device: torch.device, spec: ModelSpec, files: Sequence[bytes], count: int, cache: Path, cores: int
) -> None:
    """Forward for each batch size, decoding for each number of threads, then both as a worker runs them."""
    stage = "labelling"
    precision = "bf16" if report.about["bf16"] else "fp32"
    forward = {}
    settle(device)
    most = 256 if device.type == "cuda" else 2
    for size in (1, 8, 64, most, 512) if device.type == "cuda" else (1, most):
        forward[size] = forward_rate(build(spec).on(device, precision), device, size, 224)  # type: ignore[arg-type]
        report.figure(stage, f"forward, {precision}, batches of {size}, images/s", forward[size])
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # the next runtime settles it again
        loose = forward_rate(build(spec).on(device, precision), device, 256, 224)  # type: ignore[arg-type]
        report.figure(stage, f"forward, {precision}, batches of 256, with cuDNN's benchmark, images/s", loose)
        torch.backends.cudnn.benchmark = False
    for where in ("thread", "process"):
        decode_in(where)
        decode_rate = 0.0
        for lanes in sorted({1, 8, cores}):
            if lanes > cores:
                continue
            decoded(files[:lanes], lanes)  # processes begin
            some = [files[n % len(files)] for n in range(min(count, 400 * lanes))]
            began = time.perf_counter()
            decoded(some, lanes)
            rate = len(some) / (time.perf_counter() - began)
            decode_rate = max(decode_rate, rate)
            report.figure(stage, f"decode in {lanes} of {where}, images/s", rate)
        with closing(load(spec, device, precision, cache, threads=cores)) as runtime:
            # Workers decode in processes, so threads are only compared with.
            rate, busy, events = end_to_end(runtime, files, count if where == "process" else count // 5, HOW)
        limit = min(forward[most], decode_rate)
        report.figure(stage, f"decode in {where}: end to end, images/s", rate)
        report.figure(stage, f"decode in {where}: end to end, share of the slower of forward and decode", rate / limit)
        report.figure(stage, f"decode in {where}: device busy, by events", events)
        report.figure(stage, f"decode in {where}: device busy, by NVML", busy)
        if device.type == "cuda" and where == "process":
            report.check("NVML was asked how busy the device is", math.isfinite(busy))
            report.check("end to end ≥ 0.9 × min(forward, decode)", rate >= 0.9 * limit, f"{rate / limit:.2f}")


def forward_rate(model: object, device: torch.device, size: int, side: int, seconds: float = 1.0) -> float:
    """Return the images/s of forward passes alone on pixels that are on the device."""
    assert callable(model)
    pixels = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        each = machine.timed(lambda: model(pixels), device, 2)
        batches = max(1, int(seconds / each))
        machine.wait(device)
        began = time.perf_counter()
        for _ in range(batches):
            model(pixels)
        machine.wait(device)
    return size * batches / (time.perf_counter() - began)


def end_to_end(
    runtime: TorchRuntime, files: Sequence[bytes], count: int, how: Preprocess
) -> tuple[float, float, float]:
    """Label `count` files through the engine; return images/s and the share of time that the device was busy, twice."""
    marks = _Marks(runtime)
    engine = Engine(runtime, preprocess=how, max_pixels=_NO_LIMIT)
    shard = [files[n % len(files)] for n in range(4096)]
    with machine.watched() as busy:
        began = time.perf_counter()
        waiting = [engine.submit(shard[: min(4096, count - at)]) for at in range(0, count, 4096)]
        for future in waiting:
            future.result(600)
        elapsed = time.perf_counter() - began
    engine.close()
    return count / elapsed, busy.share, marks.seconds() / elapsed


class _Marks:
    """Events around each forward pass of a runtime on CUDA; none elsewhere."""

    def __init__(self, runtime: TorchRuntime) -> None:
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        launch = runtime._batcher._launch
        if isinstance(launch, CudaLaunch):
            forward = launch._forward

            def marked(size: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                found = forward(size, pixels)
                last.record()
                self._pairs.append((first, last))
                return found

            launch._forward = marked  # type: ignore[method-assign]

    def seconds(self) -> float:
        return sum(first.elapsed_time(last) for first, last in self._pairs) / 1000 if self._pairs else float("nan")


def load(
    spec: ModelSpec, device: torch.device, precision: str, cache: Path, threads: int = 4, resize: str = "cpu"
) -> TorchRuntime:
    loaded = select.load(
        spec,
        device=str(device),
        runtime="torch",
        precision=precision,
        threads=threads,
        batch_size=0 if device.type == "cuda" else 8,
        resize=resize,
        cache_dir=cache,
    )
    assert isinstance(loaded, TorchRuntime)
    return loaded


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    found: NDArray[np.float32] = exponentials / exponentials.sum(1, keepdims=True)
    return found
