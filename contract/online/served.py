"""Which models answer single requests: a record in the bucket for each, which survives restarts.

It says what is wanted; `worker.process.serving` keeps the models loaded, and `contract.online.state` says how that
stands.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import Field, ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, NotOwner, NotServed, ObjectNotFound
from contract.keys.bucket import SERVED
from contract.keys.online import parse_served, served_record
from contract.models.registry import Model, Registry, Task
from contract.records import Precision, Record
from contract.suggest import did_you_mean
from contract.times import iso

TASKS: tuple[Task, ...] = ("classify", "classify-sequence", "generate")
"""What models do that answer single requests."""


class Served(Record):
    """`served/<name>/<version>.json`."""

    name: str
    version: int
    task: Task
    precision: Precision = "auto"
    created_at: str
    owner: str = Field("", description="Who may end it; empty: anybody.")

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


class ServedModels:
    """The served models of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def all(self) -> list[Served]:
        """Return every record that this version can read, by name, the newest version first."""
        found = (parse_served(entry.key) for entry in self._store.list(SERVED))
        refs = sorted((ref for ref in found if ref is not None), key=lambda ref: (ref[0], -ref[1]))
        records = (self._read(*ref) for ref in refs)
        return [record for record in records if record is not None]

    def add(self, ref: str, *, precision: Precision = "auto", owner: str = "") -> Served:
        """Serve a model from now on: `name`, `name@version` or `name@alias`, as it stands now.

        Serving it again changes the precision. Raises UnknownModel, InvalidInput for a model that answers no single
        requests, and NotOwner if another owner serves it.
        """
        model = Registry(self._store).get(ref, tasks=TASKS)
        if (before := self._read(model.name, model.version)) is not None:
            _check(before, owner)
        served = Served(
            name=model.name,
            version=model.version,
            task=model.task,
            precision=precision,
            created_at=before.created_at if before else iso(time.time()) or "",
            owner=before.owner if before else owner,
        )
        self._store.put(served_record(model.name, model.version), served.to_json())
        return served

    def remove(self, ref: str, owner: str = "") -> list[Served]:
        """Serve a model no longer: `name@version`, or every version of `name`. Raises NotServed and NotOwner."""
        found = matching(ref, self.all())
        for served in found:
            _check(served, owner)
        for served in found:
            self._store.delete(served_record(served.name, served.version))
        return found

    def _read(self, name: str, version: int) -> Served | None:
        try:
            return Served.model_validate_json(self._store.get(served_record(name, version)))
        except (ObjectNotFound, ValidationError):
            return None


def matching(ref: str, served: Sequence[Served]) -> list[Served]:
    """Return the served versions that `name` or `name@version` means, the newest first; raises NotServed."""
    name, at, _ = ref.partition("@")
    if found := [one for one in served if (one.ref == ref if at else one.name == name)]:
        return found
    refs = [one.ref for one in served]
    known = f"{did_you_mean(ref, [*refs, *(one.name for one in served)])} " if served else ""
    raise NotServed(f"{ref} answers no single requests; {known}`imagemill serve {ref}` has it do so.")


def find(ref: str, served: Sequence[Served], store: ObjectStore) -> Served:
    """Return the served model that `name`, `name@version` or `name@alias` stands for.

    The bare name is the version that it stands for in the registry if that is served, else the newest that is.
    Raises NotServed, and UnknownModel for an alias that is none.
    """
    name, at, tag = ref.partition("@")
    if at and not tag.isdigit():
        model: Model = Registry(store).get(ref)
        return matching(model.ref, served)[0]
    found = matching(ref, served)
    if len(found) == 1:
        return found[0]
    registered = Registry(store).get(name).ref
    return next((one for one in found if one.ref == registered), found[0])


def check_task(served: Served, tasks: Sequence[Task]) -> None:
    """Raise InvalidInput if a model does something else than one of these."""
    if served.task not in tasks:
        raise InvalidInput(f"{served.ref} does {served.task}, and this takes a model that does {' or '.join(tasks)}.")


def _check(served: Served, owner: str) -> None:
    if owner and served.owner not in ("", owner):
        raise NotOwner(
            f"{served.ref} is served by {served.owner}, and you are {owner}; set IMAGEMILL_OWNER if that is you too."
        )
