"""What holds for every family in the zoo, by its task; a new one inherits these tests."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from contract.errors import ModelError
from worker import zoo

FAMILIES = zoo.families()
CLASSIFIERS = zoo.families("classify")
SEQUENCE_CLASSIFIERS = zoo.families("classify-sequence")
GENERATORS = zoo.families("generate")

CLASSES, SIZE, FRAMES = 7, 28, 5


def create(family: str, seed: int = 1) -> nn.Module:
    """A small one, with as much of the config as its builder takes."""
    torch.manual_seed(seed)
    takes = inspect.signature(zoo.builder(family)).parameters
    config = {"classes": CLASSES, "channels": 1, "size": SIZE}
    return zoo.create(family, **{name: value for name, value in config.items() if name in takes})


def inputs(
    family: str, model: nn.Module, examples: int, call: Callable[..., object] | None = None
) -> dict[str, Tensor]:
    """What `call`, or the model's forward, takes, by the names of its parameters."""
    generator = torch.Generator().manual_seed(2)
    channels = 1 if "channels" in inspect.signature(zoo.builder(family)).parameters else 3
    frames = (FRAMES,) if family in SEQUENCE_CLASSIFIERS else ()
    latent = getattr(model, "latent", 0)
    makers: dict[str, Callable[[], Tensor]] = {
        "x": lambda: torch.rand(examples, *frames, channels, SIZE, SIZE, generator=generator) * 2 - 1,
        "lengths": lambda: torch.arange(examples) % FRAMES + 1,
        "y": lambda: torch.arange(examples) % CLASSES,
        "z": lambda: torch.randn(examples, latent, generator=generator),
        "noise": lambda: torch.randn(examples, latent, generator=generator),
    }
    return {name: makers[name]() for name in inspect.signature(call or model.forward).parameters}


def answers(model: nn.Module, given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        found = model.eval()(**given)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("family", [*CLASSIFIERS, *SEQUENCE_CLASSIFIERS])
def test_a_classifier_gives_logits_and_features(family: str) -> None:
    model = create(family)
    logits, features = answers(model, inputs(family, model, 2))
    assert logits.shape == (2, CLASSES)
    assert features.shape[0] == 2
    assert features.ndim == 2
    assert logits.dtype == features.dtype == torch.float32


@pytest.mark.parametrize("family", GENERATORS)
def test_a_generator_gives_images(family: str) -> None:
    model: Any = create(family).eval()
    with torch.inference_mode():
        images = model.decode(**inputs(family, model, 3, model.decode))
    assert images.shape == (3, 1, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1


@pytest.mark.parametrize("family", GENERATORS)
def test_a_generator_heeds_the_latent_and_the_class(family: str) -> None:
    model: Any = create(family).eval()
    given = inputs(family, model, 2, model.decode)
    same_latent = {"z": given["z"][:1].expand(2, -1), "y": torch.tensor([0, 1])}
    same_class = {"z": given["z"], "y": torch.tensor([0, 0])}
    with torch.inference_mode():
        for case in (same_latent, same_class):
            first, second = model.decode(**case)
            assert not torch.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_example_does_not_know_its_neighbours(family: str) -> None:
    model = create(family)
    given = inputs(family, model, 3)
    together = answers(model, given)
    alone = [answers(model, {name: value[i : i + 1] for name, value in given.items()}) for i in range(3)]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", SEQUENCE_CLASSIFIERS)
def test_what_lies_behind_a_sequence_changes_nothing(family: str) -> None:
    # Given sequences of 1 to 5 frames in one batch
    model = create(family)
    given = inputs(family, model, FRAMES)
    lengths = given["lengths"]
    assert sorted(lengths.tolist()) == [1, 2, 3, 4, 5]
    expected = answers(model, given)

    # if I fill the padding with noise, I expect the same answers
    padding = torch.arange(FRAMES) >= lengths[:, None]
    noisy = torch.where(padding[:, :, None, None, None], torch.randn_like(given["x"]) * 9, given["x"])
    for one, other in zip(answers(model, {"x": noisy, "lengths": lengths}), expected, strict=True):
        torch.testing.assert_close(one, other)

    # and so if I add more of it
    longer = torch.cat([noisy, noisy], dim=1)
    for one, other in zip(answers(model, {"x": longer, "lengths": lengths}), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    # or take all of it away.
    for i, length in enumerate(lengths.tolist()):
        alone = answers(model, {"x": given["x"][i : i + 1, :length], "lengths": lengths[i : i + 1]})
        for one, other in zip(alone, expected, strict=True):
            torch.testing.assert_close(one[0], other[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", SEQUENCE_CLASSIFIERS)
def test_every_real_frame_counts_and_so_does_their_order(family: str) -> None:
    model = create(family)
    frames = inputs(family, model, 1)["x"][0]
    changed = frames.clone()
    changed[0] = -changed[0]
    batch = {"x": torch.stack([frames, changed, frames.flip(0)]), "lengths": torch.full((3,), FRAMES)}
    _, (features, other, reverse) = answers(model, batch)
    assert not torch.allclose(features, other, atol=1e-4)
    assert not torch.allclose(features, reverse, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_weights(family: str) -> None:
    first, same, other = (create(family, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_every_parameter(family: str) -> None:
    model = create(family).train()
    found = model(**inputs(family, model, 2 * CLASSES))
    torch.manual_seed(3)
    # Random weights, so that no symmetric sum is 0 by itself.
    loss = sum((part * torch.randn_like(part)).sum() for part in (found if isinstance(found, tuple) else (found,)))
    loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_come_back_from_half_precision(family: str) -> None:
    model, again = create(family, 1), create(family, 2)
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    again.load_state_dict(load(save(half)))
    given = inputs(family, model, 2)
    for one, other in zip(answers(again, given), answers(model, given), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_channels_last_and_bfloat16_change_little(family: str) -> None:
    model = create(family)
    given = inputs(family, model, 2)
    expected = answers(model, given)
    with torch.autocast("cpu", torch.bfloat16):
        found = answers(model.to(memory_format=torch.channels_last), given)  # type: ignore[call-overload]
    for one, other in zip(found, expected, strict=True):
        # bf16 has 8 bits: 0.4 % a rounding, of which each layer adds some.
        assert (one.float() - other).norm() < 0.1 * other.norm() + 0.01


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if "size" in inspect.signature(zoo.builder(family)).parameters]
)
def test_what_is_made_for_28_pixels_stays_below_4_mb_at_half_precision(family: str) -> None:
    model = zoo.create(family, classes=10, channels=1, size=28)
    assert len(save({name: tensor.half() for name, tensor in model.state_dict().items()})) < 4_000_000


def test_an_unknown_family_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean efficientnet-lite0"):
        zoo.create("efficientnet-lite")
    with pytest.raises(ModelError, match="did you mean gan"):
        zoo.task("gans")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"colour": "blue"}, id="unknown"),
        pytest.param({"classes": "many"}, id="a wrong type"),
        pytest.param({"dropout": 2.0}, id="out of range"),
        pytest.param({"classes": -1}, id="negative"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="cannot be built"):
        zoo.create("efficientnet-lite0", **config)


def test_families_are_found_by_their_task() -> None:
    assert sorted([*CLASSIFIERS, *SEQUENCE_CLASSIFIERS, *GENERATORS]) == list(FAMILIES)
    assert {"cnn", "efficientnet-lite0"} <= set(CLASSIFIERS)
    assert {"rnn"} <= set(SEQUENCE_CLASSIFIERS)
    assert {"gan", "vae"} <= set(GENERATORS)
    assert all(zoo.task(family) == "generate" for family in GENERATORS)


def test_labels_cost_no_torch() -> None:
    code = "import sys; from worker.zoo import builtin; builtin.imagenet_classes(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
