"""Datasets grow by one job at a time; references find a version; nothing that one names is deleted."""

from __future__ import annotations

from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.datasets import extending
from contract.datasets.records import Version
from contract.datasets.versions import Datasets
from contract.errors import DatasetBusy, InvalidInput, JobConflict, NotOwner, UnknownDataset
from contract.jobs import index
from contract.jobs.lifecycle import Backend, close, submit
from contract.jobs.retention import check_removable, expire
from contract.jobs.specs import Synthesize
from contract.keys.bucket import DATASETS
from contract.keys.datasets import dataset_record, dataset_version
from contract.keys.jobs import JobKeys
from producer import datasets as own
from tests.synthetic import GATE, LABELS, WEIGHTS, synthesize_spec


def spec_of(store: ObjectStore, id: str, number: int, **fields: Any) -> Synthesize:
    at = f"2026-11-{24 + number}T02:00:00.000Z"
    return synthesize_spec(store, id, extend={"dataset": "garments", "number": number, "at": at}, **fields)


def version_of(spec: Synthesize, **fields: Any) -> Version:
    assert spec.extend is not None
    known = {**spec.extend.model_dump(), "job": spec.id, "model": spec.model, "weights_sha256": WEIGHTS}
    shape = {"labels": LABELS, "size": 8, "channels": 1, "image_format": "png", "parts": ()}
    gate = {"gate": spec.gate, "gate_sha256": GATE, "seed": spec.seed, "accepted": {"zero": 5}}
    return Version.model_validate({**known, **gate, **shape, **fields})


def add(backend: Backend, id: str, number: int, **fields: Any) -> Version:
    """A version whose job has succeeded."""
    spec = spec_of(backend.store, id, number, **fields)
    submit(backend, spec, "ann")
    made = version_of(spec)
    extending.publish(backend.store, made)
    close(backend, id, "succeeded")
    return made


def test_one_job_at_a_time_makes_the_next_version(backend: Backend) -> None:
    # Given a job that extends a dataset and has not ended, if another one would,
    store = backend.store
    submit(backend, spec_of(store, "first", 1), "ann")

    # I expect it to be refused, with the job that it has to wait for,
    with pytest.raises(DatasetBusy, match="first is extending the dataset garments"):
        submit(backend, spec_of(store, "second", 1), "ann")
    assert not store.exists(JobKeys("second").spec)

    # and to be admitted once that has ended without a version,
    close(backend, "first", "canceled")
    submit(backend, spec_of(store, "second", 1), "ann")
    extending.publish(store, version_of(spec_of(store, "second", 1)))

    # while the first, taken up again, is told that it is too late.
    with pytest.raises(JobConflict, match="second has made version 1"):
        extending.publish(store, version_of(spec_of(store, "first", 1)))
    assert Datasets(store).version("garments", 1).job == "second"


def test_a_version_is_written_once_and_may_be_written_again(backend: Backend) -> None:
    made = add(backend, "first", 1)
    before = backend.store.get(dataset_version("garments", 1))
    extending.publish(backend.store, made)
    assert backend.store.get(dataset_version("garments", 1)) == before


def test_a_reference_is_a_name_a_number_a_day_or_a_minute(backend: Backend) -> None:
    for number in (1, 2, 3):
        add(backend, f"night-{number}", number)
    datasets = Datasets(backend.store)

    found = {ref: datasets.resolve(f"garments{ref}") for ref in ("", "@2", "@2026-11-25", "@2026-11-26T02:00")}

    assert found == {"": 3, "@2": 2, "@2026-11-25": 1, "@2026-11-26T02:00": 2}
    for ref, said in (("@7", "its newest is 3"), ("@2026-12-01", "no version of 2026-12-01")):
        with pytest.raises(UnknownDataset, match=said):
            datasets.resolve(f"garments{ref}")
    with pytest.raises(InvalidInput, match="is no version; write a number"):
        datasets.resolve("garments@newest")
    with pytest.raises(UnknownDataset, match="did you mean garments"):
        datasets.resolve("garment")


def test_several_versions_of_a_day_are_told_apart(backend: Backend) -> None:
    for number, hour in ((1, 2), (2, 14)):
        at = f"2026-11-25T{hour:02}:00:00.000Z"
        extend = {"dataset": "garments", "number": number, "at": at}
        spec = synthesize_spec(backend.store, f"h-{hour}", extend=extend)
        submit(backend, spec, "ann")
        extending.publish(backend.store, version_of(spec))
        close(backend, spec.id, "succeeded")
    with pytest.raises(InvalidInput, match="has 2 versions of 2026-11-25: garments@1 of 02:00, garments@2 of 14:00"):
        Datasets(backend.store).resolve("garments@2026-11-25")


def test_a_dataset_has_an_owner(backend: Backend) -> None:
    add(backend, "first", 1)
    with pytest.raises(NotOwner, match="garments belongs to ann, and you are bob"):
        submit(backend, spec_of(backend.store, "second", 2), "bob")
    with pytest.raises(NotOwner, match="belongs to ann"):
        own.remove(backend.store, "garments", "bob")


def test_a_job_goes_on_when_somebody_takes_its_dataset_over(backend: Backend) -> None:
    # Given a job of ann that extends her dataset, if bob takes the dataset over,
    add(backend, "first", 1)
    second = spec_of(backend.store, "second", 2)
    submit(backend, second, "ann")
    Datasets(backend.store).own("garments", "bob")

    # I expect the job to be submitted again, as after a death, and to make its version,
    assert not submit(backend, second, "ann")
    extending.publish(backend.store, version_of(second))
    close(backend, "second", "succeeded")
    # and the next one to be bob's.
    with pytest.raises(NotOwner, match="garments belongs to bob, and you are ann"):
        submit(backend, spec_of(backend.store, "third", 3), "ann")
    submit(backend, spec_of(backend.store, "third", 3), "bob")
    assert Datasets(backend.store).resolve("garments") == 2


def test_what_a_version_names_is_kept(backend: Backend) -> None:
    # Given a job whose retention is over, and whose images are a version,
    add(backend, "first", 1, keep_days=0.0)
    store = backend.store

    # I expect neither the controller nor a user to remove it,
    assert index.dataset_of(store, "first") == "garments"
    assert expire(backend, 0.0) == []
    with pytest.raises(JobConflict, match="The dataset garments holds the images of first"):
        check_removable(store, "first")

    # until the dataset is removed.
    assert own.remove(store, "garments", "ann") == 1
    assert [found.job for found in expire(backend, 0.0)] == ["first"]
    assert not list(store.list(DATASETS))


def test_a_dataset_that_somebody_needs_is_not_removed(backend: Backend) -> None:
    add(backend, "first", 1)
    submit(backend, spec_of(backend.store, "second", 2), "ann")
    with pytest.raises(JobConflict, match="second is extending the dataset garments"):
        own.remove(backend.store, "garments", "ann")
    close(backend, "second", "canceled")

    reader = synthesize_spec(
        backend.store, "third", away_from={"kind": "dataset", "uri": "garments@1", "label": "dataset:garments"}
    )
    submit(backend, reader, "ann")
    with pytest.raises(JobConflict, match="The job third needs the dataset garments"):
        own.remove(backend.store, "garments", "ann")
    assert Datasets(backend.store).resolve("garments") == 1


def test_a_removal_that_was_interrupted_is_read_by_nobody_and_completed(backend: Backend) -> None:
    add(backend, "first", 1)
    record = Datasets(backend.store).get("garments").model_copy(update={"removing": True})
    backend.store.put(dataset_record("garments"), record.to_json())
    with pytest.raises(UnknownDataset, match="is being removed"):
        Datasets(backend.store).resolve("garments")
    assert own.page(backend.store, 10, "") == []

    own.remove(backend.store, "garments", "ann")
    assert not list(backend.store.list(DATASETS))


def test_datasets_are_listed_by_pages(backend: Backend) -> None:
    for name in ("a", "b", "c"):
        extend = {"dataset": name, "number": 1, "at": "2026-11-25T02:00:00.000Z"}
        submit(backend, synthesize_spec(backend.store, f"job-{name}", extend=extend), "ann")
    assert [one.name for one in own.page(backend.store, 2, "")] == ["a", "b"]
    assert [one.name for one in own.page(backend.store, 2, "b")] == ["c"]
