"""The protocol that lists a source: its images or sequences, one by one, always in the same order.

Each kind of source has a class of its own, named in `contract.jobs.sources`. It reads the object store only: local
folders are the producer's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Literal

from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.errors import InvalidSource
from contract.import_paths import load
from contract.jobs.sources import source_kind
from contract.jobs.specs import Source

Part = Literal["train", "test"]


class Lister(ABC):
    """Lists one source.

    With `frames` an item is a sequence, of which at most so many are looked at. With `labels` each item says its class,
    if the source does: the folder that it is in, the `.cls` or `.json` beside it in a tar, the column `label` of a
    manifest. `min_score` leaves out less certain labels of an earlier job.
    """

    def __init__(
        self, store: ObjectStore, source: Source, *, frames: int = 0, labels: bool = False, min_score: float = 0.0
    ) -> None:
        self.store, self.source = store, source
        self.frames, self.labels, self.min_score = frames, labels, min_score
        self.skipped = 0
        """Files met so far that are no images by their name."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Yield every item; raises InvalidSource if the source cannot be read."""

    def rest(self, done: int, last: Item | None) -> Iterator[Item]:
        """Yield what comes behind the first `done` items, of which `last` is the last."""
        return islice(self.items(), done, None)

    def count(self, part: Part) -> int | None:
        """Return how many images there are if that is known without listing them, else None."""
        return None

    def has_test_part(self) -> bool:
        """Return whether the source keeps images apart to test with."""
        return False

    def class_order(self, found: Collection[str]) -> tuple[str, ...] | None:
        """Return the classes in the order that the source gives them, None if it gives none; `found` are its labels."""
        return None


def lister(
    store: ObjectStore, source: Source, *, frames: int = 0, labels: bool = False, min_score: float = 0.0
) -> Lister:
    """Return what lists a source; raises InvalidSource if it is none that can be listed."""
    kind = source_kind(source.kind)
    if kind.packed_by_producer:
        raise InvalidSource(f"{source.label} is packed by the producer; run the same command again.")
    if kind.lister is None:
        raise InvalidSource(f"{source.label} has no images that could be listed.")
    made: Lister = load(kind.lister)(store, source, frames=frames, labels=labels, min_score=min_score)
    return made


def labelled_items(store: ObjectStore, source: Source, *, frames: int = 0, min_score: float = 0.0) -> Iterator[Item]:
    """Yield every item of a source with its label; raises InvalidSource if one has none."""
    listing = lister(store, source, frames=frames, labels=True, min_score=min_score)
    return labelled(listing, listing.items())


def labelled(listing: Lister, items: Iterator[Item]) -> Iterator[Item]:
    """Yield items of a listing; raises InvalidSource at the first that has no label."""
    for item in items:
        if item.label is None:
            what = "sequences" if listing.frames else "images"
            raise InvalidSource(
                f"{item.key} of {listing.source.label} has no label; put {what} into a folder a class, write .cls "
                "files beside them in a tar, or give a manifest a column `label`."
            )
        yield item
