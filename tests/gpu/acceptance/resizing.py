"""Resizing on the device: Pillow's pixels from photos, how fast, and the whole with it."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.gpu.acceptance import labelling, machine
from tests.gpu.acceptance.report import Report
from worker.engine.images import decode, decoders
from worker.engine.images.regions import Region, packed
from worker.engine.programs.graph import build
from worker.engine.runtimes import resize
from worker.engine.runtimes.resize import Moved
from worker.engine.types import ModelSpec

_STAGE = "resize"
_BATCH = 256


def throughput(
    report: Report, device: torch.device, spec: ModelSpec, files: Sequence[bytes], count: int, cache: Path, cores: int
) -> None:
    """Compare with Pillow, measure the kernel and the decoding that is left, then both as a worker runs them."""
    if device.type == "cuda" and not resize.has_triton():
        report.skip("resizing by the kernel of Triton", "Triton is not installed; torch's operators resize instead")
    by = resize.resize_on(device)
    report.figure(_STAGE, "resized by", by.__module__.rpartition(".")[2] + "." + by.__name__)
    report.check("noise has the pixels of Pillow", not resize.differs(by, device))
    regions = [_region(files[n % len(files)]) for n in range(_BATCH if device.type == "cuda" else 8)]
    allocate = _pinned if device.type == "cuda" else np.empty
    batch = packed(regions, allocate)  # type: ignore[arg-type]
    out = torch.empty((len(batch), 224, 224, 3), dtype=torch.uint8, device=device)
    by(Moved.to(device, batch), out)
    wanted = labelling.decoded([files[n % len(files)] for n in range(len(batch))], cores)
    report.check("photos have the pixels of Pillow", bool((out.cpu().numpy() == wanted).all()), f"{len(batch)} photos")
    moved = Moved.to(device, batch)
    seconds = machine.timed(lambda: by(moved, out), device)
    report.figure(_STAGE, "resize alone, images/s", len(batch) / seconds)
    seconds = machine.timed(lambda: by(Moved.to(device, batch), out), device)
    report.figure(_STAGE, "copy to the device and resize, images/s", len(batch) / seconds)
    report.figure(_STAGE, "bytes copied an image", batch.pixels.nbytes // len(batch))
    began = time.perf_counter()
    packed(regions, allocate)  # type: ignore[arg-type]
    report.figure(_STAGE, "packing by one thread, images/s", len(batch) / (time.perf_counter() - began))
    precision = "bf16" if report.about["bf16"] else "fp32"
    forward = labelling.forward_rate(build(spec).on(device, precision), device, len(batch), 224)  # type: ignore[arg-type]
    for where in ("thread", "process"):
        labelling.decode_in(where)
        decoding = _decode_rate(files, min(count, 400 * cores), cores)
        report.figure(_STAGE, f"decode in {cores} of {where}, images/s", decoding)
        with closing(labelling.load(spec, device, precision, cache, threads=cores, resize="device")) as runtime:
            report.check(f"decode in {where}: the runtime resizes", runtime.resizes)
            some = count if where == "process" else count // 5
            rate, busy, events = labelling.end_to_end(runtime, files, some, labelling.HOW)
        report.figure(_STAGE, f"decode in {where}: end to end, images/s", rate)
        report.figure(_STAGE, f"decode in {where}: end to end, share of forward", rate / forward)
        limit = min(forward, decoding)
        report.figure(_STAGE, f"decode in {where}: end to end, share of the slower of forward and decode", rate / limit)
        report.figure(_STAGE, f"decode in {where}: device busy, by events", events)
        report.figure(_STAGE, f"decode in {where}: device busy, by NVML", busy)


def _region(data: bytes) -> Region:
    """Return what is resized of a photo; its pixels are those that Pillow would resize."""
    found = decode.decode(data, 224, crop=0.875, interpolation="bicubic", max_pixels=10**9, regions=True)
    assert found.region is not None, Image.open(io.BytesIO(data)).size
    return found.region


def _decode_rate(files: Sequence[bytes], count: int, threads: int) -> float:
    """Return the images/s of decoding alone, without a resize, on so many threads."""
    from concurrent.futures import ThreadPoolExecutor

    def some(start: int) -> int:
        chunk = [files[n % len(files)] for n in range(start, start + 32)]
        return sum(1 for _ in decoders.open_each(chunk, labelling.HOW, max_pixels=10**9, frames=0, regions=True))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(0, 32 * threads, 32)))  # processes begin
        began = time.perf_counter()
        done = sum(pool.map(some, range(0, max(count, 32), 32)))
    return done / (time.perf_counter() - began)


def _pinned(shape: tuple[int, ...], dtype: type[np.generic]) -> object:
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()
