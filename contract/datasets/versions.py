"""Named datasets of generated images: their versions in the bucket, and how a reference finds one.

A dataset is a chain of versions, 1, 2, 3, …, each one object that is written last and only if absent. A version names
the job that made its images and the objects that hold them; what a dataset holds *at* a version are the images of that
version and of all before it. The record `dataset.json` says whose the dataset is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from contract.backend.named_records import NamedRecords
from contract.backend.objects import ObjectStore
from contract.datasets.records import DatasetRecord, Version
from contract.errors import InvalidInput, ObjectDamaged, ObjectNotFound, UnknownDataset
from contract.keys.bucket import DATASETS
from contract.keys.datasets import (
    dataset_record,
    dataset_version,
    dataset_versions,
    parse_dataset,
    parse_dataset_version,
)

PREFIX = "dataset:"
"""What stands before the name of a dataset where another source could stand."""

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{3}Z)?)?)?")


@dataclass(frozen=True)
class Grown:
    """A dataset at a version: that version and all before it, oldest first."""

    name: str
    versions: tuple[Version, ...]

    @property
    def ref(self) -> str:
        return self.versions[-1].ref

    @property
    def newest(self) -> Version:
        return self.versions[-1]

    @property
    def accepted(self) -> dict[str, int]:
        """Images of each class, in the generator's order."""
        found = dict.fromkeys(self.newest.labels, 0)
        for version in self.versions:
            for label, number in version.accepted.items():
                found[label] += number
        return {label: number for label, number in found.items() if number}


class Datasets(NamedRecords[DatasetRecord]):
    """The datasets of one bucket: their records, and their versions."""

    record = DatasetRecord
    noun, commands = "dataset", "imagemill datasets"
    first = "`imagemill synthesize --extend` begins one."
    invalid, unknown = InvalidInput, UnknownDataset
    remedy = "upgrade, or restore it from a backup"
    longest = 63
    prefix = DATASETS
    key, parse = staticmethod(dataset_record), staticmethod(parse_dataset)

    def names_after(self, name: str) -> Iterator[str]:
        """Yield the names of datasets in the order of their keys, those behind `name`, or all for an empty one."""
        # A folder sorts before its own keys: continue behind all of them.
        behind = f"{DATASETS}{name}/{chr(0x10FFFF)}" if name else ""
        for entry in self._store.list(DATASETS, folders=True, after=behind):
            if found := self.parse(entry.key):
                yield found

    def get(self, name: str) -> DatasetRecord:
        """Return the record of a dataset; raises UnknownDataset with the nearest names, or if it is being removed."""
        found = super().get(name)
        if found.removing:
            raise UnknownDataset(
                f"The dataset {name} is being removed; `imagemill datasets rm {name}` completes what was interrupted."
            )
        return found

    def remove(self, name: str, owner: str) -> None:
        """Remove a dataset and its versions, or complete a removal that was interrupted; the images stay.

        Raises UnknownDataset and NotOwner.
        """
        found = super().get(name)
        self.check_owner(found, owner)
        # From here on nobody reads it, so that no reader sees a part of it.
        self.change(found, removing=True)
        own = self.key(name)
        self._store.delete_all([entry.key for entry in self._store.list(f"{DATASETS}{name}/") if entry.key != own])
        self._store.delete(own)

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of a dataset's versions, ascending."""
        entries = self._store.list(dataset_versions(name))
        return sorted(found for found in (parse_dataset_version(entry.key) for entry in entries) if found)

    def version(self, name: str, number: int) -> Version:
        """Return one version; raises UnknownDataset, and ObjectDamaged for what this version cannot read."""
        found = read_version(self._store, name, number)
        if found is None:
            raise UnknownDataset(f"The dataset {name} has no version {number}; `imagemill datasets show {name}`.")
        return found

    def resolve(self, ref: str) -> int:
        """Return the number of the version that `name`, `name@number` or `name@time` means.

        A bare name is the newest version. A time is UTC, to the day, the minute or the millisecond, and must leave one
        version. Raises UnknownDataset, and InvalidInput if several versions are of that time.
        """
        name, _, wanted = ref.partition("@")
        self.get(name)
        numbers = self.numbers(name)
        if not numbers:
            raise UnknownDataset(f"The dataset {name} has no version yet: the job that extends it has not succeeded.")
        if not wanted:
            return numbers[-1]
        if wanted.isdecimal():
            if int(wanted) not in numbers:
                raise UnknownDataset(
                    f"The dataset {name} has no version {wanted}; its newest is {numbers[-1]}, and "
                    f"`imagemill datasets show {name}` lists all."
                )
            return int(wanted)
        return self._of_time(name, wanted, numbers)

    def _of_time(self, name: str, wanted: str, numbers: Sequence[int]) -> int:
        if not _TIME.fullmatch(wanted):
            raise InvalidInput(
                f"{wanted!r} is no version; write a number, {name}@{numbers[-1]}, a day, {name}@2026-11-25, or a "
                f"minute in UTC, {name}@2026-11-25T02:00."
            )
        found = [version for version in self._all(name, numbers) if version.at.startswith(wanted)]
        if not found:
            raise UnknownDataset(
                f"The dataset {name} has no version of {wanted}; `imagemill datasets show {name}` lists all."
            )
        if len(found) > 1:
            refs = ", ".join(f"{version.ref} of {version.at[11:16]}" for version in found[:5])
            raise InvalidInput(f"The dataset {name} has {len(found)} versions of {wanted}: {refs}; name one of them.")
        return found[0].number

    def grown(self, ref: str) -> Grown:
        """Return a dataset at the version that `ref` means; raises what `resolve` raises."""
        name, last = ref.partition("@")[0], self.resolve(ref)
        return Grown(name, tuple(self._all(name, range(1, last + 1))))

    def _all(self, name: str, numbers: Sequence[int]) -> Iterator[Version]:
        from contract.jobs.commits import in_parallel

        yield from in_parallel(lambda number: self.version(name, number), numbers, threads=8)


def read_version(store: ObjectStore, name: str, number: int) -> Version | None:
    """Return a version of a dataset, None if there is none; raises ObjectDamaged for what cannot be one."""
    key = dataset_version(name, number)
    try:
        return Version.model_validate_json(store.get(key))
    except ObjectNotFound:
        return None
    except ValidationError as error:
        raise ObjectDamaged(
            f"s3://{store.bucket}/{key} is no version of a dataset that this Imagemill can read; upgrade, or restore "
            "it from a backup."
        ) from error


def name_of(text: str) -> str | None:
    """Return the reference behind `dataset:`, None for another text."""
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) else None


def short_time(at: str) -> str:
    """Return the time of a version as people write it: the minute in UTC, or the second if it has one."""
    time = datetime.fromisoformat(at)
    return f"{time:%Y-%m-%dT%H:%M}" if not time.second else f"{time:%Y-%m-%dT%H:%M:%S}"
