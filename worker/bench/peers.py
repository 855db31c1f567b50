"""Measures other ways to label the same photos: a plain DataLoader, and Ray Data where it is installed.

Each uses the engine's decode and runtime, and writes the same JSON lines as the ideal loop, so that what differs is the
plumbing between files, cores and model.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.models.registry import Preprocess
from worker.engine.images.decode import Decoded, decode
from worker.engine.pipeline import top_k
from worker.engine.types import Runtime

_NO_LIMIT = 2**62
_BATCH = 32
"""The largest batch, as in the ideal loop."""


def peers(
    photos: Sequence[Path], runtime: Runtime, load: Callable[[], Runtime], preprocess: Preprocess, into: Path
) -> dict[str, Callable[[], float]]:
    """Return a step for each peer that is installed; it labels every photo once and returns images/s.

    `load` makes the same runtime in another process, which it is pickled for.
    """
    batch = min(runtime.batch_size, _BATCH)
    steps: dict[str, Callable[[], float]] = {
        "peer_dataloader": _dataloader(photos, runtime, preprocess, batch, into / "dataloader.jsonl")
    }
    if importlib.util.find_spec("ray") is not None:
        steps["peer_ray"] = lambda: _ray_data(photos, load, preprocess, batch, into / "ray")
    return steps


class _Photos:
    """A map-style data set: the name, width, height and pixels of a photo."""

    def __init__(self, photos: Sequence[Path], preprocess: Preprocess) -> None:
        self._photos = list(photos)
        self._how = preprocess

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, n: int) -> tuple[str, int, int, NDArray[np.uint8]]:
        path = self._photos[n]
        image = _decoded(path.read_bytes(), self._how)
        return path.name, image.width, image.height, image.pixels


def _dataloader(
    photos: Sequence[Path], runtime: Runtime, how: Preprocess, batch_size: int, target: Path
) -> Callable[[], float]:
    """Decode in a process a core, and run the model in this one; the processes stay between runs."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _Photos(photos, how),  # type: ignore[arg-type]
        batch_size=batch_size,
        num_workers=len(os.sched_getaffinity(0)),
        collate_fn=_columns,
        multiprocessing_context="spawn",  # a runtime has threads, which do not survive a fork
        persistent_workers=True,
    )

    def measure() -> float:
        start = time.perf_counter()
        with target.open("w") as out:
            for names, widths, heights, pixels in loader:
                out.writelines(_lines(names, widths, heights, runtime.submit(pixels).result().logits))
        return len(photos) / (time.perf_counter() - start)

    return measure


def _columns(
    rows: list[tuple[str, int, int, NDArray[np.uint8]]],
) -> tuple[list[str], list[int], list[int], NDArray[np.uint8]]:
    names, widths, heights, pixels = zip(*rows, strict=True)
    return list(names), list(widths), list(heights), np.stack(pixels)


def _ray_data(
    photos: Sequence[Path], load: Callable[[], Runtime], how: Preprocess, batch_size: int, folder: Path
) -> float:
    """Read, decode and label by Ray Data: decoding on every core, the model in an actor, which it loads in each run.

    The cluster stays between runs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def decoded(row: dict[str, Any]) -> dict[str, Any]:
        image = _decoded(row["bytes"], how)
        name = Path(row["path"]).name
        return {"key": name, "width": image.width, "height": image.height, "pixels": image.pixels}

    class Label:
        def __init__(self) -> None:
            self.runtime = load()

        def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
            names = [str(name) for name in batch["key"]]
            logits = self.runtime.submit(np.stack(list(batch["pixels"]))).result().logits
            return {"line": list(_lines(names, batch["width"].tolist(), batch["height"].tolist(), logits))}

    start = time.perf_counter()
    data = ray.data.read_binary_files([str(path) for path in photos], include_paths=True)
    one = ray.data.ActorPoolStrategy(size=1)
    data.map(decoded).map_batches(Label, batch_size=batch_size, compute=one, num_cpus=0).write_json(str(folder))
    return len(photos) / (time.perf_counter() - start)


def close() -> None:
    """End Ray's cluster if one was started."""
    if importlib.util.find_spec("ray") is not None:
        import ray

        ray.shutdown()


def _decoded(data: bytes, how: Preprocess) -> Decoded:
    return decode(data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=_NO_LIMIT)


def _lines(names: list[str], widths: list[int], heights: list[int], logits: NDArray[np.float32]) -> list[str]:
    indices, scores = top_k(logits, 5)
    rows = zip(names, widths, heights, indices.tolist(), scores.tolist(), strict=True)
    return [
        json.dumps({"key": key, "width": width, "height": height, "top_k": i, "scores": s}) + "\n"
        for key, width, height, i, s in rows
    ]
