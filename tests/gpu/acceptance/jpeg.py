"""JPEG files decoded on the device by nvImageCodec: Pillow's pixels but for rounding, its labels, and how fast."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.gpu.acceptance import labelling, machine
from tests.gpu.acceptance.report import Report
from worker.engine.images import decode, decoders
from worker.engine.images.device_decoder import DeviceDecoder
from worker.engine.images.nvimgcodec import LEVELS, Codec
from worker.engine.programs.graph import build
from worker.engine.types import ModelSpec

_STAGE = "jpeg"
_CHUNK = 32


def throughput(
    report: Report, device: torch.device, spec: ModelSpec, files: Sequence[bytes], count: int, cache: Path, cores: int
) -> None:
    """Compare pixels and labels with Pillow's, then measure decoding alone and the whole with it."""
    # Its process may read what is installed; the wheels of `make gpu-wheels` may lie elsewhere.
    libraries = [entry for entry in sys.path if entry and (Path(entry) / "nvidia").is_dir()]
    decoder = DeviceDecoder((device.index or 0) if device.type == "cuda" else None, readable=libraries)
    decoders.configure(children=True, seconds=60, max_pixels=10**9, gpu=decoder)
    some = list(files[:512])
    found = dict(decoder.each(list(enumerate(some)), _head(regions=False)))
    if not decoder.version:
        report.skip("JPEG on the device", "nvImageCodec does not run here; the log above says why")
        return
    report.figure(_STAGE, "nvImageCodec", decoder.version)
    report.figure(_STAGE, "photos that it decodes, share", len(found) / len(some))
    report.check("nvImageCodec decodes every plain photo", _plain(some) <= found.keys(), f"{len(found)} of {len(some)}")
    wanted = {place: _by_pillow(some[place]) for place in found}
    apart = [int(np.abs(found[place].pixels.astype(np.int16) - wanted[place].pixels).max()) for place in found]
    report.figure(_STAGE, "largest difference of a pixel, levels", max(apart))
    report.check("photos are within a few levels of Pillow's", max(apart) <= LEVELS, f"{max(apart)} of {LEVELS}")
    again = dict(decoder.each(list(enumerate(some)), _head(regions=False)))
    same = all((again[place].pixels == found[place].pixels).all() for place in found)
    report.check("nvImageCodec: the same twice", same)
    precision = "bf16" if report.about["bf16"] else "fp32"
    with closing(labelling.load(spec, device, precision, cache, threads=cores)) as runtime:
        of_pillow = labelling.logits_of(runtime, np.stack([one.pixels for one in wanted.values()]))
        of_device = labelling.logits_of(runtime, np.stack([one.pixels for one in found.values()]))
    surer = labelling.probabilities(of_pillow).max(1) > 0.5
    equal = (of_pillow.argmax(1) == of_device.argmax(1))[surer]
    report.check(
        "labels as with Pillow, where that is surer than 0.5",
        len(equal) > 0 and bool(equal.mean() >= 0.995),
        f"{int(equal.sum())} of {len(equal)}",
    )
    _alone(report, device, files, cores)
    rate = _rate(files, min(count, 2000 * cores), cores)
    report.figure(_STAGE, f"decode by {cores} threads, images/s", rate)
    size = 256 if device.type == "cuda" else 2
    forward = labelling.forward_rate(build(spec).on(device, precision), device, size, 224)  # type: ignore[arg-type]
    for where in ("cpu", "device"):
        with closing(labelling.load(spec, device, precision, cache, threads=cores, resize=where)) as runtime:
            whole, busy, events = labelling.end_to_end(runtime, files, min(count, 20_000), labelling.HOW)
        report.figure(_STAGE, f"resize on the {where}: end to end, images/s", whole)
        report.figure(_STAGE, f"resize on the {where}: end to end, share of forward", whole / forward)
        report.figure(_STAGE, f"resize on the {where}: device busy, by events", events)
        report.figure(_STAGE, f"resize on the {where}: device busy, by NVML", busy)
    if device.type == "cuda":
        share = whole / forward
        report.check("with JPEG and resize on the device: end to end ≥ 0.9 × forward", share >= 0.9, f"{share:.2f}")
    report.check("nvImageCodec did not fail", not decoder.given_up)


def _head(*, regions: bool) -> dict[str, Any]:
    how = labelling.HOW
    head = {"size": how.size, "crop": how.crop, "interpolation": how.interpolation, "max_pixels": 10**9}
    return {**head, "regions": regions}


def _plain(files: Sequence[bytes]) -> set[int]:
    how = labelling.HOW
    found = (decode.plain_header(file, how.size, crop=how.crop, max_pixels=10**9) for file in files)
    return {place for place, header in enumerate(found) if header is not None}


def _by_pillow(file: bytes) -> decode.Decoded:
    return decode.open_item(file, labelling.HOW, max_pixels=10**9, frames=0)


def _alone(report: Report, device: torch.device, files: Sequence[bytes], cores: int) -> None:
    """Measure the library without a process around it, small images by its Huffman decoder on the CPU and the GPU."""
    how = labelling.HOW
    headers = [decode.plain_header(file, how.size, crop=how.crop, max_pixels=10**9) for file in files]
    plain = [(file, header[:2]) for file, header in zip(files, headers, strict=True) if header is not None]
    options = {"its default": "", "Huffman on the GPU": "nvjpeg_cuda_decoder:hybrid_huffman_threshold=0"}
    for name, more in options.items():
        codec = Codec((device.index or 0) if device.type == "cuda" else None, threads=cores, more=more)
        for size in (_CHUNK, 256):
            some = [plain[n % len(plain)] for n in range(size if device.type == "cuda" else 4)]
            parts = [one for one, _ in some], [extent for _, extent in some]
            seconds = machine.timed(lambda parts=parts, codec=codec: codec.decode(*parts), device)
            report.figure(_STAGE, f"nvImageCodec alone, {name}, {size} at a time, images/s", len(some) / seconds)


def _rate(files: Sequence[bytes], count: int, threads: int) -> float:
    """Return the images/s of decoding alone, not resized, with so many threads that wait for it."""

    def some(start: int) -> int:
        chunk = [files[n % len(files)] for n in range(start, start + _CHUNK)]
        return sum(1 for _ in decoders.open_each(chunk, labelling.HOW, max_pixels=10**9, frames=0, regions=True))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(0, _CHUNK * threads, _CHUNK)))
        began = time.perf_counter()
        done = sum(pool.map(some, range(0, max(count, _CHUNK), _CHUNK)))
    return done / (time.perf_counter() - began)
