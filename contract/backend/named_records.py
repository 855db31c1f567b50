"""Records with a name and an owner, each an object in the bucket. It does not know what else a record says.

Watches, schedules and datasets are kept this way: `NamedRecords` reads, writes and lists them, says which names they
can have, and who may change them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, NotOwner, ObjectNotFound
from contract.suggest import did_you_mean


class NamedRecord(Protocol):
    """What a record has, as a subclass of `contract.records.Record` with a name and an owner does."""

    @property
    def name(self) -> str: ...

    @property
    def owner(self) -> str:
        """Who may change it; empty: anybody."""
        ...

    def to_json(self) -> bytes: ...

    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...

    @classmethod
    def model_validate_json(cls, json_data: bytes, /) -> Self: ...


R = TypeVar("R", bound=NamedRecord)


class NamedRecords(ABC, Generic[R]):
    """The records of one kind in one bucket; a subclass says which kind.

    A change is read, then written: of two at the same time the later one stays.
    """

    record: type[R]
    noun: ClassVar[str]
    """What one is called in a sentence."""
    commands: ClassVar[str]
    """The commands for them: `list`, `own`, and `add` and `remove` where people add them."""
    first: ClassVar[str]
    """What to do where there are none, as a sentence."""
    invalid: ClassVar[type[InvalidInput]]
    """The error for a name that is taken or cannot be, and for a record that cannot be read."""
    unknown: ClassVar[type[InvalidInput]]
    remedy: ClassVar[str] = "remove it and add it again"
    """What helps if a record cannot be read."""
    longest: ClassVar[int]
    """The most characters of a name."""
    reserved: ClassVar[Mapping[str, str]] = {}
    """Names that no record can have, each with the reason as a clause."""
    prefix: ClassVar[str]

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @staticmethod
    @abstractmethod
    def key(name: str) -> str:
        """Return the key of a record."""

    @staticmethod
    @abstractmethod
    def parse(key: str) -> str | None:
        """Return the name of the record that an entry of the listing stands for, or None."""

    # Names

    @classmethod
    def check_name(cls, name: str) -> str:
        """Return the name if a record can have it; raises `invalid`."""
        if name in cls.reserved:
            raise cls.invalid(
                f"{name!r} cannot be the name of a {cls.noun}: {cls.reserved[name]}; choose another name."
            )
        if not cls._can_be(name):
            raise cls.invalid(
                f"{name!r} cannot be the name of a {cls.noun}; use up to {cls.longest} of a-z, 0-9 and -, with a "
                "letter or digit first."
            )
        return name

    @classmethod
    def _can_be(cls, name: str) -> bool:
        fits = re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) is not None and len(name) <= cls.longest
        return fits and name not in cls.reserved

    def names(self) -> list[str]:
        """Return the names of all records, sorted."""
        entries = self._store.list(self.prefix, folders=True)
        return sorted(found for found in (self.parse(entry.key) for entry in entries) if found)

    # Reading

    def find(self, name: str) -> R | None:
        """Return a record, None if there is none; raises `invalid` for what cannot be a name or cannot be read."""
        data = self._read(self.check_name(name))
        if data is None:
            return None
        try:
            found = self.record.model_validate_json(data)
            if found.name != name:
                raise ValueError(f"It is the record of {found.name}")  # a change would be written there
        except ValueError as error:  # pydantic's errors are some, too
            raise self.invalid(
                f"The {self.noun} {name} cannot be read by this version of Imagemill; {self.remedy}."
            ) from error
        return found

    def get(self, name: str) -> R:
        """Return a record; raises `unknown` with the nearest names, and `invalid` if it cannot be read."""
        found = self.find(name) if self._can_be(name) else None
        if found is None:
            raise self._unknown(name)
        return found

    def owned(self, name: str, owner: str) -> R:
        """Return a record that `owner` may change; raises NotOwner, and what `get` raises."""
        found = self.get(name)
        self.check_owner(found, owner)
        return found

    def check_owner(self, found: R, owner: str) -> None:
        """Raise NotOwner unless `owner` may change the record."""
        if found.owner not in ("", owner):
            raise NotOwner(
                f"The {self.noun} {found.name} belongs to {found.owner}, and you are {owner}; set IMAGEMILL_OWNER if "
                f"that is you too, or take it over with `{self.commands} own {found.name}`."
            )

    # Writing

    def add(self, made: R) -> None:
        """Write a new record; raises `invalid` if the name is taken."""
        key, data = self.key(made.name), made.to_json()
        # If the response to our write was lost, the object is ours all the same.
        if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
            raise self.invalid(
                f"There is a {self.noun} {made.name!r} already; choose another name, or "
                f"`{self.commands} remove {made.name}` first."
            )

    def put(self, made: R) -> None:
        """Overwrite a record."""
        self._store.put(self.key(made.name), made.to_json())

    def change(self, found: R, **fields: object) -> R:
        """Overwrite a record with these fields changed, and return it."""
        changed = found.model_copy(update=fields)
        self.put(changed)
        return changed

    def own(self, name: str, owner: str) -> R:
        """Make `owner` the owner, whoever was before, and return the record; raises what `get` raises."""
        return self.change(self.get(name), owner=owner)

    def remove(self, name: str, owner: str) -> None:
        """Remove a record that `owner` may change; raises `unknown` and NotOwner.

        A record that cannot be read has no owner who could object.
        """
        data = self._read(name) if self._can_be(name) else None
        if data is None:
            raise self._unknown(name)
        try:
            found = self.record.model_validate_json(data)
        except ValidationError:
            pass
        else:
            self.check_owner(found, owner)
        self._store.delete(self.key(name))

    def _read(self, name: str) -> bytes | None:
        try:
            return self._store.get(self.key(name))
        except ObjectNotFound:
            return None

    def _unknown(self, name: str) -> InvalidInput:
        known = [other for other in self.names() if other != name]  # a store may list a folder that is empty now
        if not known:
            return self.unknown(f"There is no {self.noun} {name!r}, nor any other; {self.first}")
        return self.unknown(
            f"There is no {self.noun} {name!r}; {did_you_mean(name, known)} `{self.commands} list` shows all."
        )
