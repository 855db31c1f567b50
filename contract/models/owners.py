"""Says who may publish under the name of a model, and which versions a bare name may stand for.

An owner is what a producer calls itself. That prevents mistakes, not force: whoever may write the objects can write any
owner. The policies in `deploy/policies` decide who may.
"""

from __future__ import annotations

import time

from contract.backend.objects import ObjectStore
from contract.errors import NotOwner, ObjectNotFound
from contract.keys.models import model_owner
from contract.records import Record
from contract.times import iso

BUILT_IN = {"efficientnet-lite0": 1, "fashion-cnn": 1, "fashion-gan": 1, "fashion-vae": 1, "motion-rnn": 1}
"""The models that ship, with the version that does. Their names are reserved: workers publish them, nobody else."""


class Owner(Record):
    """`models/<name>/owner.json`: who owns a name, and the last version that counts as the owner's whoever made it."""

    owner: str
    through: int = 0
    since: str = ""


class Owners:
    """The owners of the models of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def of(self, name: str) -> Owner | None:
        """Return who owns a name; None if nobody does, as with a name that an older Imagemill published."""
        try:
            return Owner.model_validate_json(self._store.get(model_owner(name)))
        except ObjectNotFound:
            return None

    def check(self, name: str, owner: str) -> None:
        """Raise NotOwner if `owner` may not publish, move or remove versions of a name."""
        check_free(name)
        found = self.of(name)
        if found is not None and found.owner != owner:
            raise NotOwner(
                f"The model {name} belongs to {found.owner}, and you are {owner}; choose another name, set "
                f"IMAGEMILL_OWNER if that is you too, or take it over with `imagemill models own {name}`."
            )

    def claim(self, name: str, owner: str, newest: int) -> None:
        """Become the owner of a name that has none, whose newest version is `newest`; raises NotOwner."""
        check_free(name)
        if self.of(name) is None:
            self._store.put_if_absent(model_owner(name), _made(owner, newest))
        self.check(name, owner)

    def take_over(self, name: str, owner: str, newest: int) -> str | None:
        """Make `owner` the owner, up to its version `newest` as if it were the owner's; return who was before."""
        check_free(name)
        before = self.of(name)
        if before is None or before.owner != owner:
            self._store.put(model_owner(name), _made(owner, newest))
        return None if before is None else before.owner

    def admits(self, name: str, version: int, owner: str) -> bool:
        """Return whether a version may be published, and whether the bare name may stand for it."""
        if name in BUILT_IN:
            return version == BUILT_IN[name]
        found = self.of(name)
        return found is None or version <= found.through or owner == found.owner


def check_free(name: str) -> None:
    """Raise NotOwner for the name of a model that ships."""
    if name in BUILT_IN:
        raise NotOwner(f"The name {name} is reserved for the model that ships with Imagemill; choose another one.")


def _made(owner: str, newest: int) -> bytes:
    return Owner(owner=owner, through=newest, since=iso(time.time()) or "").to_json()
