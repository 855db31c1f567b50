"""Measures jobs that label photos, beside the ideal loop: from the bucket, from a folder, by more workers.

A job's time runs from its record in the bucket to its end, so planning, queue, results and report are part of it, and
so is packing a folder; the start of the command is not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from contract import settings as configuration
from contract.backend.objects import ObjectStore
from contract.models.registry import Model
from contract.records import Precision
from worker.bench import labelling as engine_measure
from worker.bench import peers
from worker.bench.cpu import CpuSeconds
from worker.bench.stack import Commands, job, say, stack, upload
from worker.bench.turns import in_turn
from worker.engine.types import Runtime
from worker.execution.model_cache import load_runtime
from worker.zoo import builtin

_WARM_UP = 500
"""Photos of the jobs that warm up: they load the model and take every way of reading photos once."""
_ALONE = 2000
"""Photos that are decoded alone, or labelled as noise: these rates do not depend on how many there are."""


def measure(
    base: Path,
    files: list[Path],
    runtime: Runtime,
    model: Model,
    precision: Precision,
    *,
    repeat: int,
    with_peers: bool,
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Measure the parts, the ideal loop, its peers, and jobs on stacks of their own; also CPU seconds by process.

    One stack has a worker for all cores, the other a worker a core.
    """
    preprocess = model.preprocess
    others: dict[str, Callable[[], float]] = {}
    if with_peers:
        load = partial(load_runtime, model, base / model.weights.name, configuration.load(), precision)
        others = peers.peers(files, runtime, load, preprocess, base)
    few = files[:_WARM_UP]
    (base / "few").mkdir()
    for file in few:
        shutil.copy(file, base / "few")
    number = len(os.sched_getaffinity(0))
    with stack(base) as one, stack(base / "each", workers=number) as each:
        say("uploading them as objects and as tars …")
        for folder, objects in ((base, True), (base / "each", False)):
            store = ObjectStore(configuration.load(data=folder / "stack"))
            upload(store, files, base, objects=objects)
            upload(store, few, base, objects=objects, under="bench-few")
        cpu = {one: CpuSeconds(one.supervisor), each: CpuSeconds(each.supervisor)}

        def jobs(under: str, folder: str) -> dict[str, Callable[[], float]]:
            tars = f"s3://imagemill/{under}/tars/"
            sources: dict[str, tuple[Commands, str]] = {
                "product_tars": (one, tars),
                "product_objects": (one, f"s3://imagemill/{under}/objects/"),
                "product_folder": (one, str(base / folder)),
                "product_workers": (each, tars),
            }
            return {
                name: cpu[on].of(name, job(on, "classify", source, "--model", builtin.NAME, "--precision", precision))
                for name, (on, source) in sources.items()
            }

        def alone(files: Sequence[Path]) -> dict[str, Callable[[], float]]:
            return {
                "decode": lambda: engine_measure.decode_only(files[:_ALONE], preprocess, runtime.lanes),
                "forward": lambda: engine_measure.forward_only(runtime, min(len(files), _ALONE), preprocess.size),
                "ideal": cpu[one].of("ideal", lambda: engine_measure.ideal_loop(files, runtime, preprocess)),
            }

        try:
            runs = in_turn(
                {**alone(files), **jobs("bench", "photos"), **others},
                repeat,
                warm_up={**alone(few), **jobs("bench-few", "few"), **others},
            )
            return runs, cpu[one].medians(repeat) | cpu[each].medians(repeat)
        finally:
            peers.close()
