"""What a shard of a job that generates is to make: a block of indices of some classes. A line a shard.

All of them are one object, `plan/portions.jsonl`, since a plan is known at once, or a wave at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.keys import JobKeys
from contract.records import Record


class Portion(Record):
    """The images `start` to `stop` − 1 of each of these classes, index by index: all classes of one before the next."""

    labels: tuple[int, ...]
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.labels) * (self.stop - self.start)

    def images(self) -> Iterator[tuple[int, int]]:
        """Class and index of each, in order."""
        return ((label, index) for index in range(self.start, self.stop) for label in self.labels)


def cut(labels: Sequence[int], start: int, stop: int, size: int) -> Iterator[Portion]:
    """The images `start` to `stop` − 1 of each class, in portions of about `size`, each with all the classes."""
    step = max(1, size // len(labels))
    for first in range(start, stop, step):
        yield Portion(labels=tuple(labels), start=first, stop=min(first + step, stop))


def write(store: ObjectStore, job: str, portions: Iterable[Portion]) -> None:
    """Write down what every shard of a job is."""
    lines = "".join(f"{portion.model_dump_json()}\n" for portion in portions)
    store.put(JobKeys(job).portions, lines.encode())


def read(store: ObjectStore, job: str) -> list[Portion]:
    """What the shards of a job are, none before it is planned."""
    try:
        lines = store.get(JobKeys(job).portions).splitlines()
    except ObjectNotFound:
        return []
    return [Portion.model_validate_json(line) for line in lines]
