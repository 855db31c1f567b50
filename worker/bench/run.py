"""Measures this machine: what decoding, the model and an ideal loop can do, and what the whole product does.

All in one run, in turn, so that a machine whose speed drifts still gives honest ratios. The product is
driven through its commands, as a user would.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
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
from worker.bench.crops import crops
from worker.datasets.reader import training_preprocess
from worker.engine.cores import cores
from worker.engine.memory import calm_openmp, tune_allocator
from worker.engine.select import torch_device
from worker.engine.types import ModelSpec, Runtime
from worker.execution.model_cache import load_runtime
from worker.zoo import builtin

Part: TypeAlias = Literal["labelling", "training", "generation", "filtered"]

_PHOTOS = Path(__file__).parents[2] / "deploy" / "photos"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
) -> dict[str, Any]:
    """Return the figures of everything or of one part, in images/s, medians of `repeat` runs.

    Ratios are to the ideal loop of the part, of a training to its bare steps.
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
            _say(f"making {count} crops of 500×375 …")
            files = crops(photos or _PHOTOS, count, base / "photos")
        if only in (None, "labelling"):
            runtime, model = _runtime(base, precision)
            with closing(runtime):
                about |= {"device": runtime.device, "runtime": runtime.name, "precision": runtime.precision}
                runs |= _labelling(base, files, runtime, model, precision, repeat)
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
    base: Path, files: list[Path], runtime: Runtime, model: Model, precision: Precision, repeat: int
) -> dict[str, list[float]]:
    """Measure the parts, the ideal loop, and jobs on a stack of its own."""
    preprocess = model.preprocess
    with _stack(base) as imagemill:
        store = ObjectStore(configuration.load(data=base / "stack"))
        _say("uploading them as objects and as tars …")
        _upload(store, files, base)
        product = {
            "product_tars": "s3://imagemill/bench/tars/",
            "product_objects": "s3://imagemill/bench/objects/",
            "product_folder": str(base / "photos"),
        }
        steps: dict[str, Callable[[], float]] = {
            "decode": lambda: engine_measure.decode_only(files, preprocess, runtime.lanes),
            "forward": lambda: engine_measure.forward_only(runtime, len(files), preprocess.size),
            "ideal": lambda: engine_measure.ideal_loop(files, runtime, preprocess),
            **{
                name: _job(imagemill, "classify", source, "--model", builtin.NAME, "--precision", precision)
                for name, source in product.items()
            },
        }
        return _in_turn(steps, repeat)


def _in_turn(steps: Mapping[str, Callable[[], float]], repeat: int) -> dict[str, list[float]]:
    """Run each step `repeat` times after a warm-up, in turn because the machine drifts; return what they measured."""
    runs: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        _say(f"warming up: {name}")
        step()
    for n in range(repeat):
        for name, step in steps.items():
            _say(f"run {n + 1} of {repeat}: {name}")
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
    with _stack(base / "generation") as imagemill:
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
                "product_generate": _job(
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
    with tempfile.TemporaryDirectory(prefix="imagemill-bench-") as folder, _stack(Path(folder)) as imagemill:
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


def report(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    from rich.console import Console
    from rich.table import Table

    if "accuracy" in figures:
        for name, share in figures["accuracy"].items():
            print(f"{share:7.2%}  learnt from {name} images")
        return
    title = f"{figures['cores']} cores"
    if "runtime" in figures:
        title += f", photos on {figures['device']} by {figures['runtime']} in {figures['precision']}"
    table = Table(title=title)
    table.add_column("what")
    table.add_column("images/s", justify="right")
    table.add_column("of the ideal", justify="right")
    rates, ratios = figures["images_per_second"], figures["ratio_to_ideal"]
    for part, images in figures["images"].items():
        table.add_section()
        table.add_row(f"[bold]{part}[/], {_IMAGES[part].format(images)}")
        for name, meaning in _ROWS[part].items():
            table.add_row(f"  {meaning}", f"{rates[name]:,.0f}", f"{ratios[name]:.2f}")
    Console().print(table)


_IMAGES = {
    "labelling": "{:,} photos of 500×375",
    "training": "{:,} images of 28×28, gray",
    "generation": "{:,} images of 28×28, gray",
}
_ROWS = {
    "labelling": {
        "decode": "decode only, all cores",
        "forward": "forward only",
        "ideal": "ideal loop: file, decode, forward, JSON line",
        "product_tars": "whole product, tars in the bucket",
        "product_objects": "whole product, one object a photo",
        "product_folder": "whole product, a local folder",
    },
    "training": {
        "train_steps": "steps alone, its ideal",
        "train": "with batches, validation, checkpoints",
    },
    "generation": {
        "generate_forward": "latents and forward only",
        "generate_encode": "PNG only, all cores",
        "generate_ideal": "ideal loop: latents, forward, PNG, tar",
        "product_generate": "whole product: files, index, upload, page",
    },
}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _runtime(base: Path, precision: Precision) -> tuple[Runtime, Model]:
    settings = configuration.load()
    model, files = builtin.efficientnet_lite0()
    path = base / model.weights.name
    path.write_bytes(files[model.weights.name])
    return load_runtime(model, path, settings, precision), model


@contextmanager
def _stack(base: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a stack; yield a function that runs an `imagemill` command and returns its JSON."""
    base.mkdir(exist_ok=True)
    program = Path(sys.executable).with_name("imagemill")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("IMAGEMILL_REDIS", "IMAGEMILL_S3"))}
    environment["IMAGEMILL_DATA"] = str(base / "stack")

    def imagemill(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [program, *arguments, "--json"], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    _say("starting a stack …")
    with _signals_raise():
        try:
            imagemill("up", "--detach")
            yield imagemill
        finally:
            # A second Ctrl-C must not keep it from stopping.
            if threading.current_thread() is threading.main_thread():
                for number in _ENDING:
                    signal.signal(number, signal.SIG_IGN)
            imagemill("down")


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let a signal that asks to end raise KeyboardInterrupt, so that the stack is stopped on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only there they raise
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _upload(store: ObjectStore, files: list[Path], base: Path) -> None:
    """Upload the photos twice: as objects, and in tars of 1,000."""
    import tarfile

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda f: store.put(f"bench/objects/{f.name}", f.read_bytes()), files))
    for first in range(0, len(files), 1000):
        path = base / f"photos-{first // 1000:04d}.tar"
        with tarfile.open(path, "w") as tar:
            for file in files[first : first + 1000]:
                tar.add(file, arcname=file.name)
        store.put_file(f"bench/tars/{path.name}", path)
        path.unlink()


def _job(imagemill: Callable[..., dict[str, Any]], *command: str) -> Callable[[], float]:
    """Return a function that runs this command and returns its items per second, start to end."""

    def measure() -> float:
        job = imagemill(*command)
        began, ended = (datetime.fromisoformat(job[key]) for key in ("created_at", "finished_at"))
        return float(job["done"]) / (ended - began).total_seconds()

    return measure
