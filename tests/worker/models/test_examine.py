"""A model is run once before it is published: what is not as its record says is told in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from contract.errors import ModelError
from contract.models.registry import Model, Preprocess, make_file
from tests.programs import Redness, export
from worker import zoo
from worker.models.examine import examine
from worker.models.trial import try_out


def record(path: Path, family: str = "program", **fields: Any) -> Model:
    given = {"labels": ("red", "other"), "preprocess": Preprocess(size=8, mean=127.5, std=127.5)}
    weights = make_file(f"weights{path.suffix}", path.read_bytes())
    return Model(name="mine", version=1, family=family, weights=weights, **{**given, **fields})


def gray(size: int = 28) -> Preprocess:
    return Preprocess(size=size, channels=1, mean=127.5, std=127.5)


def refuses(model: nn.Module, path: Path, match: str) -> None:
    export(model.eval(), path)
    with pytest.raises(ModelError, match=match) as caught:
        examine(record(path), path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def redness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(Redness().eval(), tmp_path_factory.mktemp("programs") / "redness.pt2")


def test_a_good_program_passes(redness: Path) -> None:
    examine(record(redness), redness)


def test_labels_must_be_as_many_as_logits(redness: Path) -> None:
    with pytest.raises(ModelError, match="tells 2 classes apart, its record names 3 labels"):
        examine(record(redness, labels=("a", "b", "c")), redness)


def test_features_must_be_vectors(tmp_path: Path) -> None:
    class Maps(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean((2, 3))[:, :2], x

    refuses(Maps(), tmp_path / "x.pt2", "Its features are 8 × 3 × 8 × 8 for 8 inputs, and must be 8 × d")


def test_answers_must_be_finite(tmp_path: Path) -> None:
    class Roots(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.mean((2, 3))[:, :2] - 9).sqrt()

    refuses(Roots(), tmp_path / "x.pt2", "not finite")


def test_one_that_guesses_is_found_out(tmp_path: Path) -> None:
    class Guesses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            # Drop pixels, not logits: with two logits, two runs would agree one time in four.
            return nn.functional.dropout(x, 0.5, training=True).mean((2, 3))[:, :2]

    refuses(Guesses(), tmp_path / "x.pt2", r"differently each time.*model\.eval\(\)")


def test_one_that_looks_at_the_neighbours_is_found_out(tmp_path: Path) -> None:
    class Neighbours(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.batch_norm(x, None, None, training=True).amax((2, 3))[:, :2]

    refuses(Neighbours(), tmp_path / "x.pt2", r"depends on the others in its batch.*model\.eval\(\)")


# The zoo


def test_every_task_of_the_zoo_can_be_examined(tmp_path: Path) -> None:
    configs: dict[str, dict[str, Any]] = {
        "cnn": {"classes": 2, "channels": 1, "size": 28},
        "rnn": {"classes": 2, "channels": 1, "size": 28},
        "gan": {"classes": 2, "channels": 1, "size": 28},
        "vae": {"classes": 2, "channels": 1, "size": 28},
    }
    assert {zoo.task(family) for family in configs} == {"classify", "classify-sequence", "generate"}
    for family, config in configs.items():
        path = tmp_path / f"{family}.safetensors"
        save_file({name: w.contiguous() for name, w in zoo.create(family, **config).state_dict().items()}, path)
        examine(record(path, family, config=config, task=zoo.task(family), preprocess=gray()), path)


def test_a_family_must_do_what_the_record_says(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="family vae, which does generate, and its record says classify"):
        examine(record(path, "vae"), path)
    with pytest.raises(ModelError, match="There is no family"):
        examine(record(path, "resnet18"), path)


@pytest.mark.parametrize(
    ("labels", "preprocess", "match"),
    [
        (("a", "b", "c"), gray(), "knows 2 classes, its record names 3 labels"),
        (("a", "b"), gray(56), "makes images of 8 × 1 × 28 × 28, its record says 8 × 1 × 56 × 56"),
    ],
)
def test_a_generator_must_make_what_the_record_says(
    tmp_path: Path, labels: tuple[str, ...], preprocess: Preprocess, match: str
) -> None:
    config = {"classes": 2, "channels": 1, "size": 28}
    path = tmp_path / "x.safetensors"
    save_file({name: w.contiguous() for name, w in zoo.create("vae", **config).state_dict().items()}, path)
    model = record(path, "vae", config=config, task="generate", labels=labels, preprocess=preprocess)
    with pytest.raises(ModelError, match=match):
        examine(model, path)


def test_weights_of_something_else_are_told_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    model = record(path, "cnn", config={"classes": 2, "channels": 1, "size": 28}, preprocess=gray())
    with pytest.raises(ModelError, match="do not fit the family cnn") as caught:
        examine(model, path)
    assert "\n" not in str(caught.value)


# In a process of its own


def test_the_trial_passes_on_what_the_examination_says(redness: Path) -> None:
    with pytest.raises(ModelError, match="tells 2 classes apart, its record names 3 labels"):
        try_out(record(redness, labels=("a", "b", "ç")), redness)


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"ends the process that runs it \(SIGSEGV\)"),
        ("raise OSError('no space')", r"fails where no model should \(OSError: no space\)"),
        ("import time; time.sleep(60)", "does not answer within 1 s"),
        ("import os; raise OSError(os.environ.get('IMAGEMILL_S3_SECRET_KEY'))", r"\(OSError: None\)"),
    ],
    ids=["crash", "error", "hang", "secrets"],
)
def test_whatever_a_model_does_to_its_process_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, match: str
) -> None:
    # Given a model that does this to the process that it is run in,
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("IMAGEMILL_S3_SECRET_KEY", "secret")
    weights = tmp_path / "weights.pt2"
    weights.write_bytes(b"")

    # if it is tried, I expect a sentence, and this process to live.
    with pytest.raises(ModelError, match=match):
        try_out(record(weights), weights, seconds=1 if "sleep" in code else 30)
