"""Measures the parts of labelling in images/s, to compare the whole product with.

It knows neither queue nor store, and not the engine either: `ideal_loop` is what one would write by
hand for this machine.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from contract.models.registry import Preprocess
from worker.engine.images.decode import Decoded, decode
from worker.engine.pipeline import top_k
from worker.engine.types import Runtime

_NO_LIMIT = 2**62


def decode_only(photos: Sequence[Path], preprocess: Preprocess, threads: int) -> float:
    """Read and decode every photo once, on `threads` threads."""
    return _rate(photos, threads, lambda chunk: _read(chunk, preprocess))


def forward_only(runtime: Runtime, n: int, size: int) -> float:
    """Run about n images of noise, as many batches at a time as the runtime has lanes."""
    pixels = np.random.default_rng(0).integers(0, 256, (runtime.batch_size, size, size, 3), np.uint8)
    batches = [pixels] * max(1, n // len(pixels))
    start = time.perf_counter()
    with ThreadPoolExecutor(runtime.lanes) as pool:
        list(pool.map(lambda batch: runtime.submit(batch).result(), batches))
    return len(batches) * len(pixels) / (time.perf_counter() - start)


def ideal_loop(photos: Sequence[Path], runtime: Runtime, preprocess: Preprocess, lanes: int = 0) -> float:
    """Run `lanes` threads that each read files, decode a batch, run it, take the top 5 and write JSON lines.

    `lanes` 0 means as many as the runtime asks for.
    """
    lock = threading.Lock()
    with tempfile.TemporaryFile("w") as out:

        def label(chunk: Sequence[Path]) -> None:
            images = _read(chunk, preprocess)
            output = runtime.submit(np.stack([image.pixels for image in images])).result()
            indices, scores = top_k(output.logits, 5)
            lines = [
                json.dumps({"key": path.name, "width": image.width, "height": image.height, "top_k": i, "scores": s})
                for path, image, i, s in zip(chunk, images, indices.tolist(), scores.tolist(), strict=True)
            ]
            with lock:
                out.write("\n".join(lines) + "\n")

        return _rate(photos, lanes or runtime.lanes, label, min(runtime.batch_size, 32))


def _read(chunk: Sequence[Path], how: Preprocess) -> list[Decoded]:
    return [
        decode(path.read_bytes(), how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=_NO_LIMIT)
        for path in chunk
    ]


def _rate(photos: Sequence[Path], threads: int, work: Callable[[Sequence[Path]], object], chunk: int = 8) -> float:
    chunks = [photos[start : start + chunk] for start in range(0, len(photos), chunk)]
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, chunks))
    return len(photos) / (time.perf_counter() - start)
