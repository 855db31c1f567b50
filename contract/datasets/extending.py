"""How a dataset grows: one job at a time makes its next version, and whoever is second is told so.

    pin (number, time) → claim → images → version, if absent

The number is pinned in the spec, so the outcome depends on the spec and on the versions before it, whoever runs the job
and however often. A claim saves work: it refuses a second job while the first has not ended. What decides is the
version itself, which is written only if absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from contract.backend.objects import ObjectStore
from contract.datasets.records import Claim, DatasetRecord, Extend, Version
from contract.datasets.versions import Datasets, read_version
from contract.errors import DatasetBusy, InvalidInput, JobConflict, ObjectNotFound, UnknownDataset
from contract.jobs.ends import read_standing
from contract.jobs.specs import AnySpec, Synthesize
from contract.keys.datasets import dataset_claim, dataset_record, dataset_version
from contract.keys.jobs import JobKeys
from contract.models.registry import Model
from contract.times import iso


def pin(store: ObjectStore, name: str, job: str, model: Model, fields: Mapping[str, Any], at: datetime) -> Extend:
    """Return which version of the dataset `name` the job makes.

    Raises DatasetBusy while another job makes it, and InvalidInput if the images would not fit those that are there.
    """
    datasets = Datasets(store)
    if datasets.find(name) is None:
        return _new(name, 1, at)
    datasets.get(name)
    numbers = datasets.numbers(name)
    number = numbers[-1] + 1 if numbers else 1
    check_free(store, name, number, job)
    if numbers:
        _check_fits(datasets.version(name, numbers[-1]), model, fields)
        _check_other_seed(datasets, name, numbers, model, fields)
    return _new(name, number, at)


def _new(name: str, number: int, at: datetime) -> Extend:
    return Extend(dataset=name, number=number, at=iso(at.astimezone(UTC).timestamp()) or "")


def check_free(store: ObjectStore, name: str, number: int, job: str) -> None:
    """Raise DatasetBusy if another job that has not ended makes this version."""
    try:
        claimed = Claim.model_validate_json(store.get(dataset_claim(name, number)))
    except ObjectNotFound:
        return
    if claimed.job == job or not store.exists(JobKeys(claimed.job).spec):
        return
    if read_standing(store, claimed.job).end is None:
        raise DatasetBusy(
            f"The job {claimed.job} is extending the dataset {name} and has not ended; follow it with "
            f"`imagemill follow {claimed.job}`, then try again."
        )


def _check_fits(before: Version, model: Model, fields: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless the new images have the classes, the size and the format of those before."""
    name = before.dataset
    if tuple(model.labels) != before.labels:
        raise InvalidInput(
            f"{model.ref} has other classes than {before.model}, which began the dataset {name}; extend another one."
        )
    size = fields.get("size") or model.preprocess.size
    if (size, model.preprocess.channels) != (before.size, before.channels):
        raise InvalidInput(
            f"The images of {name} have {before.size} × {before.size} pixels and {before.channels} channels, and these "
            f"would have {size} × {size} and {model.preprocess.channels}; change --size, or extend another dataset."
        )
    if fields.get("image_format", "png") != before.image_format:
        raise InvalidInput(
            f"The images of {name} are {before.image_format}; give --image-format {before.image_format}."
        )


def _check_other_seed(
    datasets: Datasets, name: str, numbers: list[int], model: Model, fields: Mapping[str, Any]
) -> None:
    """Raise InvalidInput for a seed that this generator has drawn from already: every image would be a duplicate."""
    for version in datasets.grown(f"{name}@{numbers[-1]}").versions:
        if (version.seed, version.weights_sha256) == (fields.get("seed"), model.weights.sha256):
            raise InvalidInput(
                f"Version {version.number} of {name} was drawn from seed {version.seed} by the same generator, so the "
                "same images would come again; choose another --seed."
            )


def claim(store: ObjectStore, spec: AnySpec, owner: str) -> None:
    """Take the version that a job makes, before the job is submitted, and begin its dataset if there is none.

    Raises NotOwner, DatasetBusy while another job makes the version, and JobConflict if another has made it.
    """
    if not isinstance(spec, Synthesize) or spec.extend is None:
        return
    extend, datasets = spec.extend, Datasets(store)
    began = DatasetRecord(name=extend.dataset, owner=owner, created_at=extend.at)
    store.put_if_absent(dataset_record(extend.dataset), began.to_json())
    if not store.exists(JobKeys(spec.id).spec):  # a job that is there has been admitted
        datasets.owned(extend.dataset, owner)
    made = read_version(store, extend.dataset, extend.number)
    if made is not None and made.job != spec.id:
        raise JobConflict(taken(made))
    key, ours = dataset_claim(extend.dataset, extend.number), Claim(job=spec.id).to_json()
    if made is None and not store.put_if_absent(key, ours):
        check_free(store, extend.dataset, extend.number, spec.id)
        store.put(key, ours)


def publish(store: ObjectStore, version: Version) -> None:
    """Write a version, last of all that a job makes of it; raises JobConflict if another job has made it.

    The same job may write it again. Raises UnknownDataset if the dataset was removed meanwhile.
    """
    name, number = version.dataset, version.number
    if Datasets(store).find(name) is None or (number > 1 and read_version(store, name, number - 1) is None):
        raise UnknownDataset(f"The dataset {name} was removed while this job extended it; its images are kept.")
    if store.put_if_absent(dataset_version(name, number), version.to_json()):
        return
    there = Datasets(store).version(name, number)
    if there != version:
        raise JobConflict(taken(there))


def taken(made: Version) -> str:
    """Say that a version is there already."""
    return (
        f"The job {made.job} has made version {made.number} of the dataset {made.dataset} already; submit this one "
        "again as a new job, which makes the next."
    )
