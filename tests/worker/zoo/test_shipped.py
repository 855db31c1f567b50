"""The models that ship with Imagemill: their files are what their records say, and their cards have their figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load

from contract.backend.objects import ObjectStore
from contract.jobs.status import Status
from contract.models.registry import Registry, make_file
from contract.settings import Settings
from worker import zoo
from worker.zoo import builtin
from worker.zoo.ship import ship

SHIPPED = sorted(set(builtin.models()) - {(builtin.NAME, builtin.VERSION)})


@pytest.mark.parametrize(("name", "version"), SHIPPED)
def test_a_shipped_model_is_what_its_record_says(name: str, version: int) -> None:
    model, files = builtin.models()[name, version]()
    assert model.weights.bytes <= 4_000_000
    for entry in (model.weights, *model.files):
        assert make_file(entry.name, files[entry.name]) == entry
    # Its module takes the weights, and computes with them.
    module = zoo.create(model.family, **model.config)
    module.load_state_dict(load(files[model.weights.name]))
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values() if tensor.is_floating_point())
    card = files[str(model.card)].decode()
    assert card.startswith(f"# {name}@{version}\n")
    assert f"imagemill train {model.family}" in card
    assert "## Judged by `imagemill evaluate`" in card


def test_a_shipped_model_goes_into_the_registry(settings: Settings) -> None:
    store = ObjectStore(settings)
    store.ensure_bucket()
    registry = Registry(store)
    for make in builtin.models().values():
        assert registry.publish(*make(), ships=True)
    for name, version in builtin.models():
        registry.verify(registry.get(f"{name}@{version}"))


def test_what_is_shipped_is_what_was_pulled_and_what_it_was_judged_to_be(tmp_path: Path) -> None:
    # Given a model that was pulled as version 3, and an evaluation of it,
    name, version = SHIPPED[0]
    model, files = builtin.models()[name, version]()
    pulled, into = tmp_path / "pulled", tmp_path / "shipped"
    pulled.mkdir()
    card = files[str(model.card)].replace(b"@1", b"@3", 1)
    third = model.model_copy(
        update={
            "version": 3,
            "files": tuple(make_file(f.name, card) if f.name == model.card else f for f in model.files),
        }
    )
    for file, data in {**files, str(model.card): card, builtin.RECORD: third.to_json()}.items():
        (pulled / file).write_bytes(data)
    judged = Status(id="a", kind="evaluate", state="succeeded", source="some/images", metrics={"top1": 0.125})

    # I expect version 1 with the same weights, and the figures in record and card.
    shipped = ship(pulled, [judged], into)
    assert (shipped.ref, shipped.weights) == (f"{name}@1", model.weights)
    assert shipped.metrics["top1"] == 0.125
    text = (into / name / str(shipped.card)).read_text()
    assert text.startswith(f"# {name}@1\n") and "| top1 | 0.125 |" in text and "some/images" in text
    (entry,) = (file for file in shipped.files if file.name == shipped.card)
    assert make_file(entry.name, text.encode()) == entry
