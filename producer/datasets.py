"""Datasets as a user sees them: lists and describes them, and removes one that nobody needs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.datasets.extending import check_free
from contract.datasets.records import Version
from contract.datasets.versions import Datasets
from contract.errors import ImagemillError, InvalidSchedule, JobConflict, UnknownDataset, UnknownSchedule
from contract.jobs.lifecycle import active_jobs, read_spec
from contract.jobs.schedules import Schedules
from contract.jobs.specs import AnySpec, Synthesize
from contract.jobs.templates import Template
from contract.records import Record


class DatasetSummary(Record):
    """A dataset at a version, as `imagemill datasets list --json` prints it."""

    name: str = Field(description="Name of the dataset.")
    version: int = Field(description="The version; 0 before the first.")
    at: str = Field(default="", description="Tick or submission of that version. UTC, ISO 8601.")
    images: int = Field(default=0, description="Images in all, those of earlier versions included.")
    classes: dict[str, int] = Field(default_factory=dict, description="Images of each class.")
    model: str = Field(default="", description="Generator of that version.")
    owner: str = Field(default="", description="Who may extend and remove it; empty: anybody.")


def summary(store: ObjectStore, ref: str) -> DatasetSummary:
    """Return a dataset at the version that `ref` means; raises UnknownDataset."""
    datasets, name = Datasets(store), ref.partition("@")[0]
    record = datasets.get(name)
    if "@" not in ref and not datasets.numbers(name):
        return DatasetSummary(name=name, version=0, owner=record.owner)
    grown = datasets.grown(ref)
    newest, classes = grown.newest, grown.accepted
    return DatasetSummary(
        name=name,
        version=newest.number,
        at=newest.at,
        images=sum(classes.values()),
        classes=classes,
        model=newest.model,
        owner=record.owner,
    )


def page(store: ObjectStore, limit: int, after: str) -> list[DatasetSummary]:
    """Return at most `limit` datasets in the order of their names, those behind the name `after`."""
    found: list[DatasetSummary] = []
    for name in Datasets(store).names_after(after):
        try:
            found.append(summary(store, name))
        except UnknownDataset:
            continue  # being removed
        if len(found) == limit:
            break
    return found


def versions(store: ObjectStore, name: str, limit: int, before: int) -> list[Version]:
    """Return at most `limit` versions, newest first, those before the version `before`, or the newest for 0."""
    datasets = Datasets(store)
    datasets.get(name)
    numbers = (number for number in reversed(datasets.numbers(name)) if not before or number < before)
    return [datasets.version(name, number) for number in islice(numbers, limit)]


def remove(store: ObjectStore, name: str, owner: str) -> int:
    """Remove a dataset, and return how many jobs hold its images; they stay, and can be removed from then on.

    Raises UnknownDataset, NotOwner, and JobConflict while a job that has not ended or a schedule needs it. It completes
    a removal that was interrupted.
    """
    datasets = Datasets(store)
    record = datasets.find(name) or datasets.get(name)
    datasets.check_owner(record, owner)
    numbers = datasets.numbers(name)
    if not record.removing:
        check_free(store, name, numbers[-1] + 1 if numbers else 1, job="")
        for who in needed_by(store, name):
            raise JobConflict(f"{who} needs the dataset {name}; remove or cancel that first.")
    datasets.remove(name, owner)
    return len(numbers)


def needed_by(store: ObjectStore, name: str) -> Iterator[str]:
    """Yield who needs a dataset: schedules that name it, and jobs that read or extend it and have not ended."""
    schedules = Schedules(store)
    for schedule in schedules.names():
        try:
            template = schedules.get(schedule).template
        except (UnknownSchedule, InvalidSchedule):
            continue
        if _template_names(template, name):
            yield f"The schedule {schedule}"
    for job in active_jobs(store):
        try:
            spec = read_spec(store, job)
        except ImagemillError:
            continue
        if _spec_names(spec, name):
            yield f"The job {job}"


def _template_names(template: Template, name: str) -> bool:
    sources = (template.spec.get(place) for place in ("source", "away_from"))
    each = (one for source in sources if isinstance(source, dict) for one in source.get("parts") or [source])
    read = (source["uri"] for source in each if source.get("kind") == "dataset")
    return template.spec.get("extend") == name or any(uri.partition("@")[0] == name for uri in read)


def _spec_names(spec: AnySpec, name: str) -> bool:
    sources = [*spec.source.each]
    if isinstance(spec, Synthesize):
        if spec.extend is not None and spec.extend.dataset == name:
            return True
        sources += [spec.away_from] if spec.away_from is not None else []
    return any(source.kind == "dataset" and source.uri.partition("@")[0] == name for source in sources)
