"""Measures this machine: what decoding, the model and an ideal loop can do, and what the whole product does.

All in one run, in turn, so that a machine whose speed drifts still gives honest ratios. The product is
driven through its commands, as a user would.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
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
from worker.bench import labelling_jobs, serving
from worker.bench.crops import crops
from worker.bench.stack import compiles_each_time, job, say, stack
from worker.bench.turns import in_turn, ratios
from worker.datasets.reader import training_preprocess
from worker.engine.cores import cores
from worker.engine.memory import calm_openmp, tune_allocator
from worker.engine.select import torch_device
from worker.engine.types import ModelSpec, Runtime
from worker.execution.model_cache import load_runtime
from worker.zoo import builtin

Part: TypeAlias = Literal["labelling", "training", "generation", "serving", "filtered"]

_PHOTOS = Path(__file__).parents[2] / "deploy" / "photos"
_MOST = 2000
"""Photos of training and serving, at most. Labelling takes more by default, because what is spent once a job (planning,
the wait for its end) would weigh more in its ratio than in that of a job over millions."""
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
    seconds: float = 20.0,
) -> dict[str, Any]:
    """Return the figures of labelling, training and generation, or of one part, in images/s, medians of `repeat` runs.

    Ratios are to the ideal loop of the part, of a training to its bare steps. With labelling and serving come the CPU
    seconds by process, and with `with_peers` what else is installed that can do the same. `count` is the photos of
    labelling, `seconds` how long serving is overloaded.
    """
    if only == "filtered":
        return _filtered(data_set)
    tune_allocator()
    calm_openmp()
    images = {"labelling": count, "training": _EXAMPLES, "generation": _GENERATED}
    measured = {part: number for part, number in images.items() if only in (None, part)}
    about: dict[str, Any] = {
        "images": measured if only != "serving" else {"serving": min(count, _MOST)},
        "cores": len(os.sched_getaffinity(0)),
    }
    runs: dict[str, list[float]] = {}
    shares: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="imagemill-bench-") as folder:
        base = Path(folder)
        files: list[Path] = []
        if only != "generation":
            (base / "photos").mkdir()
            made = count if only in (None, "labelling") else min(count, _MOST)
            say(f"making {made:,} crops of 500×375 …")
            files = crops(photos or _PHOTOS, made, base / "photos")
        if only in (None, "labelling", "serving"):
            runtime, model, weights = _runtime(base, precision)
            about |= {"device": runtime.device, "runtime": runtime.name, "precision": runtime.precision}
            with closing(runtime):
                if only == "serving":
                    found, about["cpu_seconds"], about["serving"] = serving.measure(
                        *(base, files, runtime, model.preprocess, weights, precision),
                        repeat=repeat,
                        seconds=seconds,
                        with_peers=with_peers,
                    )
                    shares |= ratios(found, "serve_ideal")
                else:
                    found, about["cpu_seconds"] = labelling_jobs.measure(
                        *(base, files, runtime, model, precision), repeat=repeat, with_peers=with_peers
                    )
                    shares |= ratios(found, "ideal")
            runs |= found
        if only in (None, "training"):
            trained = in_turn(_training(files[:_MOST]), repeat)
            runs |= trained
            shares |= ratios(trained, "train_steps")
        if only in (None, "generation"):
            generated = _generation(base, precision, repeat)
            runs |= generated
            shares |= ratios(generated, "generate_ideal")
    return {
        **about,
        "compiles_each_time": compiles_each_time(),
        "images_per_second": {name: round(statistics.median(values), 1) for name, values in runs.items()},
        "ratio_to_ideal": shares,
        "runs": {name: [round(v, 1) for v in values] for name, values in runs.items()},
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
        return in_turn(
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


def _runtime(base: Path, precision: Precision) -> tuple[Runtime, Model, Path]:
    """Return the runtime of the model that ships, its record, and the file of its weights."""
    settings = configuration.load()
    model, files = builtin.efficientnet_lite0()
    path = base / model.weights.name
    path.write_bytes(files[model.weights.name])
    return load_runtime(model, path, settings, precision), model, path
