"""A generator that is loaded makes the images of its module, in either precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from contract.models.registry import Scalar
from worker import zoo
from worker.engine.generators.generator import Generator
from worker.engine.generators.sampler import Sampler
from worker.engine.types import ModelSpec, Precision

LABELS, INDEX = torch.arange(70) % 3, torch.arange(70) // 3


@pytest.mark.parametrize("family", ["gan", "vae"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_rounded_once_make_the_images_of_weights_rounded_for_each_group(
    family: str, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMILL_NATIVE_BF16", "on")  # every CPU computes in it, if slowly
    # Given a generator of the zoo, and more images than a group,
    torch.manual_seed(0)
    config: dict[str, Scalar] = {"classes": 3, "channels": 1, "size": 28, "latent": 8}
    module = zoo.create(family, **config).eval().requires_grad_(False)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    spec = ModelSpec(
        family=family,
        weights=tmp_path / "weights.safetensors",
        config=config,
        size=28,
        channels=1,
        mean=127.5,
        std=127.5,
        classes=3,
        weights_sha256="",
    )

    # I expect of a loaded one what its module makes with weights in fp32 under autocast.
    plain = Sampler(module.decode, 8, 5, torch.device("cpu"), precision)  # type: ignore[arg-type]
    images = Generator(spec, device="cpu", precision=precision).sampler(seed=5).images(LABELS, INDEX)
    apart = (images.int() - plain.images(LABELS, INDEX).int()).abs()
    assert apart.max() <= 1 and images.float().std() > 1
