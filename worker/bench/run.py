"""Measures this machine: what decoding, the model and an ideal loop can do, and what the whole product does.

All in one run, in turn, so that a machine whose speed drifts still gives honest ratios. The product is
driven through its commands, as a user would.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from contract import settings as configuration
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource
from contract.models.families import make_recipe
from contract.models.registry import Model, Registry, make_file
from contract.records import Precision
from worker.bench import labelling as engine_measure
from worker.bench import peers
from worker.bench.cpu import CpuSeconds
from worker.bench.crops import crops
from worker.bench.stack import job, say, stack, upload
from worker.datasets.reader import training_preprocess
from worker.engine.cores import cores
from worker.engine.memory import calm_openmp, tune_allocator
from worker.engine.select import torch_device
from worker.engine.types import ModelSpec, Runtime
from worker.execution.model_cache import load_runtime
from worker.zoo import builtin

Part: TypeAlias = Literal["labelling", "training", "generation", "filtered"]

_PHOTOS = Path(__file__).parents[2] / "deploy" / "photos"
_EXAMPLES, _EPOCHS = 10_000, 2
"""Examples and epochs of the training bench: an epoch takes seconds, and a tenth of the images are held out. With 2,000
examples an epoch took under a second, so work done once per epoch weighed more than in real trainings."""
_GENERATED, _CLASSES, _SHARD = 30_000, 10, 1024
"""Images, classes and shard size of the generation bench, so that a run takes several seconds."""
_GENERATOR = {"classes": _CLASSES, "channels": 1, "size": 28, "latent": 100}


def run(
    photos: Path | None,
    *,
    count: int,
    repeat: int,
    precision: Precision,
    only: Part | None = None,
    data_set: Path | None = None,
    with_peers: bool = False,
) -> dict[str, Any]:
    """Return the figures of everything or of one part, in images/s, medians of `repeat` runs.

    Ratios are to the ideal loop of the part, of a training to its bare steps. With the labelling come the CPU seconds
    by process, and with `with_peers` what else is installed that can label photos.
    """
    if only == "filtered":
        return _filtered(data_set)
    tune_allocator()
    calm_openmp()
    images = {"labelling": count, "training": _EXAMPLES, "generation": _GENERATED}
    about: dict[str, Any] = {
        "images": {part: number for part, number in images.items() if only in (None, part)},
        "cores": len(os.sched_getaffinity(0)),
    }
    runs: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="imagemill-bench-") as folder:
        base = Path(folder)
        files: list[Path] = []
        if only != "generation":
            (base / "photos").mkdir()
            say(f"making {count} crops of 500×375 …")
            files = crops(photos or _PHOTOS, count, base / "photos")
        if only in (None, "labelling"):
            runtime, model = _runtime(base, precision)
            with closing(runtime):
                about |= {"device": runtime.device, "runtime": runtime.name, "precision": runtime.precision}
                found, about["cpu_seconds"] = _labelling(base, files, runtime, model, precision, repeat, with_peers)
                runs |= found
            ratios |= _ratios(runs, "ideal")
        if only in (None, "training"):
            trained = _in_turn(_training(files), repeat)
            runs |= trained
            ratios |= _ratios(trained, "train_steps")
        if only in (None, "generation"):
            generated = _generation(base, precision, repeat)
            runs |= generated
            ratios |= _ratios(generated, "generate_ideal")
    return {
        **about,
        "images_per_second": {name: round(statistics.median(values), 1) for name, values in runs.items()},
        "ratio_to_ideal": ratios,
        "runs": {name: [round(v, 1) for v in values] for name, values in runs.items()},
    }


def _labelling(
    base: Path,
    files: list[Path],
    runtime: Runtime,
    model: Model,
    precision: Precision,
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
    number = len(os.sched_getaffinity(0))
    with stack(base) as one, stack(base / "each", workers=number) as each:
        say("uploading them as objects and as tars …")
        for folder in (base, base / "each"):
            upload(ObjectStore(configuration.load(data=folder / "stack")), files, base)
        tars = "s3://imagemill/bench/tars/"
        product = {
            "product_tars": (one, tars),
            "product_objects": (one, "s3://imagemill/bench/objects/"),
            "product_folder": (one, str(base / "photos")),
            "product_workers": (each, tars),
        }
        cpu = {one: CpuSeconds(one.supervisor), each: CpuSeconds(each.supervisor)}
        steps: dict[str, Callable[[], float]] = {
            "decode": lambda: engine_measure.decode_only(files, preprocess, runtime.lanes),
            "forward": lambda: engine_measure.forward_only(runtime, len(files), preprocess.size),
            "ideal": cpu[one].of("ideal", lambda: engine_measure.ideal_loop(files, runtime, preprocess)),
            **{
                name: cpu[on].of(name, job(on, "classify", source, "--model", builtin.NAME, "--precision", precision))
                for name, (on, source) in product.items()
            },
            **others,
        }
        try:
            return _in_turn(steps, repeat), cpu[one].medians(repeat) | cpu[each].medians(repeat)
        finally:
            peers.close()


def _in_turn(steps: Mapping[str, Callable[[], float]], repeat: int) -> dict[str, list[float]]:
    """Run each step `repeat` times after a warm-up, in turn because the machine drifts; return what they measured."""
    runs: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        say(f"warming up: {name}")
        step()
    for n in range(repeat):
        for name, step in steps.items():
            say(f"run {n + 1} of {repeat}: {name}")
            runs[name].append(step())
    return runs


def _ratios(runs: Mapping[str, list[float]], ideal: str) -> dict[str, float]:
    """Return the median ratio of each figure to `ideal`, run by run."""
    return {
        name: round(statistics.median(v / i for v, i in zip(values, runs[ideal], strict=True)), 3)
        for name, values in runs.items()
    }


def _training(files: list[Path]) -> dict[str, Callable[[], float]]:
    """Measure a training of the residual cnn on the photos at 28 × 28, ten classes: its steps alone, and all of it."""
    import torch

    from worker.bench import training as training_measure
    from worker.datasets.dataset import Dataset

    distinct = np.stack([np.asarray(Image.open(path).convert("L").resize((28, 28)))[..., None] for path in files])
    images = np.resize(distinct, (_EXAMPLES, *distinct.shape[1:]))  # over and over: a step takes as long
    data = Dataset(images, np.arange(_EXAMPLES, dtype=np.int64) % 10, tuple("0123456789"))
    recipe = make_recipe("cnn", [f"epochs={_EPOCHS}"])
    settings = configuration.load()
    device = torch.device(torch_device(settings.device))
    torch.set_num_threads(settings.threads or cores())
    return {
        "train_steps": lambda: training_measure.bare(data, recipe, device),
        "train": lambda: training_measure.looped(data, recipe, device),
    }


def _generation(base: Path, precision: Precision, repeat: int) -> dict[str, list[float]]:
    """Measure a randomly initialised GAN at 28 × 28: its parts, the ideal loop, and jobs on a stack of its own."""
    import torch

    from worker.bench import generation as measure
    from worker.engine.generators.generator import Generator

    settings = configuration.load()
    model, weights = _gan()
    path = base / model.weights.name
    path.write_bytes(weights)
    generator = Generator(
        ModelSpec.of(model, path), device=settings.device, precision=precision, threads=settings.threads
    )
    device, sampler = torch.device(generator.device), generator.sampler(seed=0)
    images, threads = measure.some_images(sampler, _CLASSES), settings.threads or cores()
    with stack(base / "generation") as imagemill:
        store = ObjectStore(configuration.load(data=base / "generation" / "stack"))
        Registry(store).publish(model, {model.weights.name: weights})
        return _in_turn(
            {
                "generate_forward": lambda: measure.forward_only(sampler, _GENERATED, _CLASSES),
                "generate_encode": lambda: measure.encode_only(images, threads),
                "generate_ideal": lambda: measure.ideal_loop(
                    sampler.decode,
                    sampler.width,
                    device,
                    generator.precision,
                    _GENERATED,
                    _CLASSES,
                    shard=_SHARD,
                    threads=threads,
                ),
                "product_generate": job(
                    imagemill, "generate", "--model", model.name, "--count", str(_GENERATED), "--precision", precision
                ),
            },
            repeat,
        )


def _filtered(data_set: Path | None) -> dict[str, Any]:
    """Return accuracies, not speeds; it takes half an hour, so it is measured only when asked for."""
    from worker.bench import filtered

    if data_set is None:
        raise InvalidSource("--only filtered needs Fashion-MNIST; name its folder with --data-set.")
    with tempfile.TemporaryDirectory(prefix="imagemill-bench-") as folder, stack(Path(folder)) as imagemill:
        found = filtered.measure(imagemill, data_set, Path(folder))
    return {"accuracy": {name: round(share, 4) for name, share in found.items()}}


def _gan() -> tuple[Model, bytes]:
    """Return the record and the weights of a randomly initialised generator, which is as fast as a trained one."""
    import torch
    from safetensors.torch import save

    from worker import zoo

    torch.manual_seed(0)
    weights = save(zoo.create("gan", **_GENERATOR).state_dict())
    model = Model(
        name="bench-gan",
        version=1,
        family="gan",
        config=dict(_GENERATOR),
        task="generate",
        labels=tuple(f"class {n}" for n in range(_CLASSES)),
        preprocess=training_preprocess(28, 1),
        weights=make_file("weights.safetensors", weights),
        source="imagemill-worker bench",
    )
    return model, weights


def _runtime(base: Path, precision: Precision) -> tuple[Runtime, Model]:
    settings = configuration.load()
    model, files = builtin.efficientnet_lite0()
    path = base / model.weights.name
    path.write_bytes(files[model.weights.name])
    return load_runtime(model, path, settings, precision), model
