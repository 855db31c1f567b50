"""What holds for every family in the zoo; a new one inherits these tests."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from contract.errors import ModelError
from worker import zoo


@pytest.mark.parametrize("family", zoo.families())
def test_a_classifier_gives_logits_and_features(family: str) -> None:
    model = zoo.create(family, classes=7).eval()
    with torch.inference_mode():
        logits, features = model(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 7)
    assert features.shape[0] == 2
    assert features.ndim == 2


@pytest.mark.parametrize("family", zoo.families())
def test_an_image_does_not_know_its_neighbours(family: str) -> None:
    model = zoo.create(family).eval()
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together, alone = model(pixels)[0], torch.cat([model(one[None])[0] for one in pixels])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="nearest are efficientnet-lite0"):
        zoo.create("efficientnet-lite")


def test_a_config_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be built"):
        zoo.create("efficientnet-lite0", colour="blue")


def test_a_family_is_entered_once() -> None:
    zoo.families()
    with pytest.raises(ValueError, match="registered twice"):
        zoo.register("efficientnet-lite0")(torch.nn.Identity)


def test_labels_cost_no_torch() -> None:
    code = "import sys; from worker.zoo import builtin; builtin.labels(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
