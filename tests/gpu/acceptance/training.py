"""Trainings on the device: how fast, and whether an interrupted one ends as a whole one."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from contract.models.recipes import CnnRecipe, GanRecipe, Recipe, RnnRecipe, VaeRecipe
from tests.gpu.acceptance import machine
from tests.gpu.acceptance.report import Report
from tests.worker.training.interruptions import AtOnce, Killed, Notes
from worker.datasets.dataset import Dataset, split
from worker.engine.arithmetic import queueing
from worker.training.data.batches import batches
from worker.training.learners import fidelity, registry
from worker.training.learners.protocol import At
from worker.training.loop import Outcome, train

_STAGE = "training"


def trainings(report: Report, device: torch.device, seconds: float) -> None:
    """Measure and interrupt a training of each family."""
    fidelity._STEPS = 50  # its judge needs to be the same each time, and not to be good
    images, sequences = _images(2048), _sequences(512)
    recipes: dict[str, tuple[Recipe, Dataset]] = {
        "cnn": (CnnRecipe(epochs=2, batch_size=128), images),
        "rnn": (RnnRecipe(epochs=2, batch_size=64), sequences),
        "gan": (GanRecipe(epochs=2, batch_size=64), images),
        "vae": (VaeRecipe(epochs=2, batch_size=128), images),
    }
    if device.type == "cpu":
        recipes = {
            "cnn": (CnnRecipe(epochs=2, batch_size=16, precision="fp32"), _images(64)),
            "rnn": (RnnRecipe(epochs=2, batch_size=16), _sequences(64)),
        }
    for name, (recipe, data) in recipes.items():
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            rate = steps_a_second(recipe, data, device, seconds)
        report.figure(_STAGE, f"{name}, steps/s of {recipe.batch_size}", rate)
        loose = [
            str(one.message).partition(" (Triggered")[0][:120] for one in warned if "determinis" in str(one.message)
        ]
        report.check(f"{name}: every operation has a deterministic kernel", not loose, "; ".join(sorted(set(loose))))
        if device.type == "cuda":
            rate = steps_a_second(recipe, data, device, seconds, loose=True)
            report.figure(_STAGE, f"{name}, steps/s with deterministic=false", rate)
        whole = _train(recipe, data, device, ())
        again = _train(recipe, data, device, ())
        interrupted = _train(recipe, data, device, (3, 6, 2))
        report.check(f"{name}: the same weights twice", _same(whole, again), _apart(whole, again))
        report.check(f"{name}: interrupted ends as whole", _same(whole, interrupted), _apart(whole, interrupted))


def steps_a_second(
    recipe: Recipe, data: Dataset, device: torch.device, seconds: float, *, loose: bool = False
) -> float:
    """Run bare steps for some seconds; `loose` as with a recipe that is not deterministic."""
    shown, held_out = split(data, 0.25, recipe.seed)
    learner = registry.make(recipe, shown, held_out, device)  # type: ignore[arg-type]
    found = list(batches(shown, batch_size=recipe.batch_size, seed=0, epoch=0))[:-1]

    def step(at: int) -> None:
        with queueing(device, loose=loose):
            learner.step(found[at % len(found)], At(at, 10**6, 0))

    for at in range(5):
        step(at)
    machine.wait(device)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(10):
            step(steps)
            steps += 1
        machine.wait(device)
    return steps / (time.perf_counter() - began)


def _train(recipe: Recipe, data: Dataset, device: torch.device, stops: Sequence[int]) -> Outcome:
    """Train; killed after so many checkpoints, a fresh learner goes on from the last one."""
    kept: bytes | None = None
    for stop in (*stops, None):
        notes = Notes(stop)
        shown, held_out = split(data, 0.25, recipe.seed)
        learner = registry.make(recipe, shown, held_out, device)  # type: ignore[arg-type]
        torch.manual_seed(stop or 0)
        often: dict[str, Any] = {}
        if stops:
            often = {"checkpoint_seconds": 0.0, "clock": itertools.count(0.0).__next__, "beside": AtOnce()}
        try:
            return train(learner, shown, recipe, notes, start=kept, **often)
        except Killed:
            kept = notes.kept
    raise AssertionError("the last one is not killed")


def _same(one: Outcome, other: Outcome) -> bool:
    return all(torch.equal(one.weights[name], tensor) for name, tensor in other.weights.items())


def _apart(one: Outcome, other: Outcome) -> str:
    largest = max(
        float((one.weights[name].float() - tensor.float()).abs().max()) for name, tensor in other.weights.items()
    )
    return f"largest difference of a weight {largest:.2g}"


def _images(n: int) -> Dataset:
    """Noise, brighter in a place that is the class's, uint8 [n, 28, 28, 1]."""
    draws = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 10
    pixels = draws.integers(0, 128, (n, 28, 28, 1), np.uint8)
    for one, label in enumerate(labels):
        row, column = divmod(int(label), 4)
        pixels[one, 8 * row : 8 * row + 8, 7 * column : 7 * column + 7] += 127
    return Dataset(pixels, labels, tuple("abcdefghij"))


def _sequences(n: int) -> Dataset:
    """A bright row that moves down, up, or not at all."""
    labels = np.arange(n, dtype=np.int64) % 3
    lengths = np.random.default_rng(0).integers(4, 9, n)
    pixels = np.zeros((n, 8, 28, 28, 1), np.uint8)
    for one, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        for frame in range(length):
            pixels[one, frame, (14 + (0, 1, -1)[label] * frame) % 28] = 255
    return Dataset(pixels, labels, ("still", "down", "up"), lengths)
