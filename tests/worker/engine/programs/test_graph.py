"""Pixels to logits: gray where the model wants gray, halves as what they stand for, programs by every runtime."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from contract.errors import ModelError
from contract.models.registry import PROGRAM
from tests.programs import Redness, export
from worker import zoo
from worker.engine import select as runtimes
from worker.engine.programs.graph import Graph, build
from worker.engine.types import ModelSpec

DIGITS: dict[str, int | float | str | bool] = {"classes": 4, "channels": 1, "size": 16, "variant": "classic"}


def spec_of(path: Path, family: str = PROGRAM, *, size: int = 8, classes: int = 2, channels: int = 3) -> ModelSpec:
    return ModelSpec(
        family=family,
        config=DIGITS if family == "cnn" else {},
        weights=path,
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=size,
        mean=127.5,
        std=127.5,
        classes=classes,
        channels=channels,
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return spec_of(export(Redness().eval(), tmp_path_factory.mktemp("program") / "redness.pt2"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A model of the zoo that sees gray, with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("digits") / "weights.safetensors"
    save_file(zoo.create("cnn", **DIGITS).state_dict(), path)
    return spec_of(path, "cnn", size=16, classes=4, channels=1)


def noise(size: int, n: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=generator)


class Echo(nn.Module):
    """Says what it is given."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.flatten(1)


def test_one_channel_is_the_luma_that_pillow_makes() -> None:
    pixels = noise(16)
    gray = Graph(Echo(), mean=0.0, std=1.0, channels=1)(pixels)[0]

    assert gray.shape == (5, 1, 16, 16)
    wanted = np.stack([np.asarray(Image.fromarray(image.numpy()).convert("L")) for image in pixels])
    # Pillow rounds to whole numbers, in fixed point.
    assert np.abs(gray[:, 0].numpy() - wanted).max() < 0.51


def test_a_gray_image_keeps_its_values() -> None:
    steps = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)

    gray = Graph(Echo(), mean=127.5, std=127.5, channels=1)(steps)[0]

    torch.testing.assert_close(gray[0, 0], (steps[0, :, :, 0].float() - 127.5) / 127.5, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_a_gray_model_runs_on_every_runtime(name: str, digits: ModelSpec, tmp_path: Path) -> None:
    pixels = noise(16)
    with torch.inference_mode():
        wanted = build(digits)(pixels)[0].numpy()

    runtime = runtimes.load(digits, device="cpu", runtime=name, precision="fp32", threads=1, cache_dir=tmp_path)
    found = runtime.submit(pixels.numpy()).result(60).logits
    runtime.close()

    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_weights_stored_as_halves_are_computed_with_in_full(digits: ModelSpec, tmp_path: Path) -> None:
    # Given the same weights, stored as fp16,
    halves = {name: w.half() if w.is_floating_point() else w for name, w in load_file(digits.weights).items()}
    path = tmp_path / "halves.safetensors"
    save_file(halves, path)

    # if they are loaded,
    graph = build(dataclasses.replace(digits, weights=path))

    # I expect float32, and an answer as near as the halves are.
    assert {weight.dtype for weight in graph.parameters()} == {torch.float32}
    with torch.inference_mode():
        exact, near = build(digits)(noise(16))[0], graph(noise(16))[0]
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_a_program_runs_on_every_runtime(name: str, precision: str, program: ModelSpec, tmp_path: Path) -> None:
    pixels = noise(8)
    # The textbook's way: the author's own module on normalised pixels.
    with torch.inference_mode():
        logits, features = Redness().eval()(((pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5).contiguous())

    runtime = runtimes.load(program, device="cpu", runtime=name, precision=precision, threads=1, cache_dir=tmp_path)
    found = runtime.submit(pixels.numpy()).result(60)
    runtime.close()

    tolerance = 1e-5 if runtime.precision == "fp32" else 2e-2
    assert runtime.name == name
    np.testing.assert_allclose(found.logits, logits.numpy(), atol=tolerance)
    np.testing.assert_allclose(found.features, features.numpy(), atol=tolerance)


def test_what_openvino_cannot_convert_runs_by_torch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(nn.Module):
        """Calls an operator that OpenVINO has no rule for."""

        def forward(self, x: Tensor) -> Tensor:
            odds: Tensor = torch.logit(x.sigmoid())
            return odds.mean((2, 3))[:, :2]

    spec = spec_of(export(Odd(), tmp_path / "odd.pt2"))

    # On any machine: runtime auto, where torch is what is left.
    with caplog.at_level(logging.WARNING):
        runtime = runtimes.load(spec, device="cpu", precision="fp32", threads=1, cache_dir=tmp_path)
    runtime.close()
    assert runtime.name == "torch"
    assert "OpenVINO cannot convert the family program" in caplog.text

    with pytest.raises(ModelError, match=r"logit.*set IMAGEMILL_RUNTIME=torch"):
        runtimes.load(spec, device="cpu", runtime="openvino", precision="fp32", threads=1, cache_dir=tmp_path)


def test_a_program_must_fit_its_record(program: ModelSpec) -> None:
    with pytest.raises(ModelError, match="names 3 labels"):
        build(dataclasses.replace(program, classes=3))
    with pytest.raises(ModelError, match="not n × 3 × 16 × 16"):
        build(dataclasses.replace(program, size=16))
