"""The registry's promises, on a real S3 server: versions that never change, aliases that move, claims that stay."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, JobConflict, ModelError, UnknownModel
from contract.keys.models import model_claim, model_file, model_record
from contract.models.registry import File, Model, Preprocess, Registry, make_file

FILES = {"weights.safetensors": b"weights", "metrics.json": b"{}", "card.md": b"# Birds"}


def record(version: int = 1, name: str = "birds", **fields: Any) -> Model:
    """The record of a model whose files are FILES."""
    weights, *files = (make_file(file, data) for file, data in FILES.items())
    how = Preprocess(size=28, mean=127.5, std=127.5)
    given = {"weights": weights, "files": tuple(files), "labels": ("jay", "tit"), "preprocess": how}
    return Model(name=name, version=version, family="cnn", **{**given, **fields})


@pytest.fixture
def registry(store: ObjectStore) -> Registry:
    return Registry(store)


def publish(registry: Registry, *versions: int, name: str = "birds") -> None:
    for version in versions:
        assert registry.publish(record(version, name), FILES)


# Finding


def test_a_name_is_its_newest_version(registry: Registry) -> None:
    publish(registry, 2, 10, 9)
    publish(registry, 3, name="birds-of-prey")

    assert registry.get("birds").ref == "birds@10"
    assert registry.get("birds@9").ref == "birds@9"
    assert registry.resolve("birds-of-prey") == ("birds-of-prey", 3)
    assert registry.versions() == [("birds", 10), ("birds", 9), ("birds", 2), ("birds-of-prey", 3)]
    assert [model.ref for model in registry.models()] == ["birds@10", "birds@9", "birds@2", "birds-of-prey@3"]


@pytest.mark.parametrize("ref", ["bird", "birds@7", "birds@", "birds@best", "birds@1@1", "@1", "", "../x", "Birds"])
def test_what_is_not_there_is_told_with_the_nearest(registry: Registry, ref: str) -> None:
    publish(registry, 1)
    registry.set_alias("birds", "bestest", 1)

    with pytest.raises(UnknownModel, match=r"There is no model .*birds.*models list"):
        registry.get(ref)


def test_aliases_are_among_the_nearest(registry: Registry) -> None:
    publish(registry, 1)
    registry.set_alias("birds", "production", 1)

    with pytest.raises(UnknownModel, match="birds@production"):
        registry.get("birds@producton")


def test_an_empty_registry_says_so(registry: Registry) -> None:
    with pytest.raises(UnknownModel, match="the registry is empty"):
        registry.get("birds")


def test_a_record_of_an_older_imagemill_still_loads(registry: Registry, store: ObjectStore) -> None:
    # Given the record of a model as the first Imagemill wrote it,
    store.put(
        model_record("old", 1),
        json.dumps(
            {
                "name": "old",
                "version": 1,
                "family": "efficientnet-lite0",
                "config": {"classes": 2},
                "task": "classify",
                "labels": ["a", "b"],
                "preprocess": {"size": 224, "crop": 0.875, "interpolation": "bicubic", "mean": 127.0, "std": 128.0},
                "weights": {"name": "weights.safetensors", "sha256": "0" * 64, "bytes": 1},
                "source": "",
                "license": "Apache-2.0",
                "created_at": "",
            }
        ).encode(),
    )
    # I expect what is new to have its default.
    model = registry.get("old")
    assert (model.preprocess.channels, model.files, model.metrics, model.card) == (3, (), {}, None)
    assert model.label_ids == ()


# Publishing


def test_the_record_keeps_what_was_said_of_the_model(registry: Registry) -> None:
    model = record(
        task="classify",
        preprocess=Preprocess(size=28, channels=1, mean=127.5, std=127.5),
        metrics={"accuracy": 0.94},
        recipe={"epochs": 10, "learning_rate": 0.1, "flip": True, "cell": "gru", "start": None},
        data={"source": "job:animals", "fingerprint": "ab", "images": 60_000},
        code="0.1.0",
        card="card.md",
    )
    assert registry.publish(model, FILES)
    assert registry.get("birds@1") == model


def test_a_version_is_published_once(registry: Registry, store: ObjectStore) -> None:
    publish(registry, 1)
    other = {**FILES, "weights.safetensors": b"others"}

    again = record(weights=make_file("weights.safetensors", b"others"))

    assert not registry.publish(again, other)
    registry.verify(registry.get("birds@1"))
    assert store.get(model_file("birds", 1, "weights.safetensors")) == b"weights"


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({**FILES, "weights.safetensors": b"other"}, r"weights\.safetensors of birds@1 hashes to"),
        ({"weights.safetensors": b"weights"}, r"differ in card\.md, metrics\.json"),
        ({**FILES, "more.txt": b""}, r"differ in more\.txt"),
    ],
)
def test_files_that_are_not_those_of_the_record_are_refused_before_anything_is_written(
    registry: Registry, store: ObjectStore, files: dict[str, bytes], match: str
) -> None:
    with pytest.raises(ModelError, match=match):
        registry.publish(record(), files)
    assert not list(store.list("models/"))


@pytest.mark.parametrize("name", ["Birds", "birds_1", "-birds", "", "a" * 64, "a/b", "birds@1"])
def test_a_name_that_cannot_be_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a model name"):
        registry.claim(name, "token")
    with pytest.raises(ValidationError, match="should match pattern"):
        record(name=name)


def test_a_record_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match="needs labels"):
        record(labels=())
    assert record(labels=(), task="generate").labels == ()
    with pytest.raises(ValidationError, match="names of their own"):
        record(files=(make_file("weights.safetensors", b""),))
    with pytest.raises(ValidationError, match="names of their own"):
        record(files=(make_file("model.json", b""),))
    with pytest.raises(ValidationError, match="not among the files"):
        record(card="other.md")
    with pytest.raises(ValidationError, match="pattern"):
        File(name="../outside", sha256="", bytes=0)


def test_labels_have_ids_in_their_order_or_none() -> None:
    assert record().label_ids == ()
    assert record(label_ids=("n01580077", "n01592084")).label_ids == ("n01580077", "n01592084")
    with pytest.raises(ValidationError, match="2 labels need as many ids, but there are 1"):
        record(label_ids=("n01580077",))
    with pytest.raises(ValidationError, match="one id is given twice"):
        record(label_ids=("n01580077", "n01580077"))


def test_a_damaged_or_missing_file_is_told(registry: Registry, store: ObjectStore) -> None:
    publish(registry, 1)
    model = registry.get("birds")
    registry.verify(model)

    store.put(model_file("birds", 1, "metrics.json"), b"[]")
    with pytest.raises(ModelError, match=r"metrics\.json of birds@1 hashes to"):
        registry.verify(model)
    store.delete(model_file("birds", 1, "metrics.json"))
    with pytest.raises(ModelError, match=r"metrics\.json of birds@1 is not in the bucket"):
        registry.verify(model)


# Claims


def test_two_publishers_never_share_a_version(registry: Registry) -> None:
    # Given six publishers at the same moment,
    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(lambda n: registry.claim("birds", f"publisher-{n}"), range(6)))
    # I expect six versions, without a gap.
    assert sorted(versions) == [1, 2, 3, 4, 5, 6]


def test_the_same_publisher_gets_its_version_again(registry: Registry) -> None:
    first = registry.claim("birds", "job-a")
    other = registry.claim("birds", "job-b")
    publish(registry, first)

    assert (first, other) == (1, 2)
    assert registry.claim("birds", "job-a") == 1, "also after it has published"
    assert registry.claim("birds", "job-b") == 2
    assert registry.claim("birds", "job-c") == 3


def test_a_published_version_is_never_claimed(registry: Registry) -> None:
    publish(registry, 5)
    assert registry.claim("birds", "somebody") == 6


# Aliases


def test_an_alias_stands_for_a_version_until_it_is_moved(registry: Registry) -> None:
    publish(registry, 1, 2)
    registry.set_alias("birds", "best", 1)
    registry.set_alias("birds", "next", 2)
    assert registry.aliases("birds") == {"best": 1, "next": 2}
    assert registry.get("birds@best").ref == "birds@1"

    registry.set_alias("birds", "best", 2)
    assert registry.get("birds@best").ref == "birds@2"

    registry.remove_alias("birds", "best")
    assert registry.aliases("birds") == {"next": 2}
    with pytest.raises(UnknownModel):
        registry.get("birds@best")


def test_an_alias_needs_a_version_and_a_name_that_is_no_number(registry: Registry) -> None:
    publish(registry, 1)
    with pytest.raises(UnknownModel, match="birds@2"):
        registry.set_alias("birds", "best", 2)
    for alias in ("1", "1st", "Best", "", "a/b", "model.json"):
        with pytest.raises(InvalidInput, match="is not an alias"):
            registry.set_alias("birds", alias, 1)
    with pytest.raises(UnknownModel, match="birds@best"):
        registry.remove_alias("birds", "best")


# Removing


def test_a_removed_version_leaves_its_number_behind(registry: Registry, store: ObjectStore) -> None:
    publish(registry, 1, 2)

    assert registry.remove("birds@2").ref == "birds@2"

    assert registry.get("birds").ref == "birds@1"
    assert [entry.key for entry in store.list("models/birds/2/")] == [model_claim("birds", 2)]
    assert registry.claim("birds", "somebody") == 3


def test_an_alias_holds_its_version(registry: Registry) -> None:
    publish(registry, 1)
    registry.set_alias("birds", "best", 1)
    for ref in ("birds@1", "birds@best"):
        with pytest.raises(JobConflict, match="birds@1 is birds@best; use `imagemill models alias --remove"):
            registry.remove(ref)

    registry.remove_alias("birds", "best")
    registry.remove("birds@1")
    assert registry.versions() == []


def test_removing_needs_a_version(registry: Registry) -> None:
    publish(registry, 1)
    with pytest.raises(InvalidInput, match="write birds@VERSION"):
        registry.remove("birds")
    with pytest.raises(UnknownModel):
        registry.remove("birds@2")
