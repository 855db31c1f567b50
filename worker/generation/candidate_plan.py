"""What a shard of a job that generates is to make: a block of indices of some classes. A line a shard.

All of them are one object, `plan/portions.jsonl`, since a plan is known at once, or a wave at a time. Waves depend on
what was accepted, never on who made it when, so any number of workers makes the same candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.jobs.specs import Generate, SampledSpec, Synthesize
from contract.keys import JobKeys
from contract.records import Record

_GUESS = 0.8
"""Acceptance before anything is known."""
_LEAST_RATE, _LEAST = 1 / 50, 64
_MORE = 1.1


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


def first_wave(spec: SampledSpec) -> list[Portion]:
    """The portions that a job begins with: all of them where nothing is rejected."""
    if isinstance(spec, Generate):
        rows, rest = divmod(spec.count, len(spec.classes))
        whole = list(cut(spec.classes, 0, rows, spec.shard_size))
        return [*whole, *([Portion(labels=spec.classes[:rest], start=rows, stop=rows + 1)] if rest else [])]
    stop = _stop(spec, accepted=0, made=0)
    return [portion for label in spec.classes for portion in cut([label], 0, stop, spec.shard_size)]


def next_wave(spec: Synthesize, shards: Sequence[Portion], accepted: Mapping[int, int]) -> list[Portion]:
    """The portions still to be made, none where every class has enough, or as many candidates as it may have."""
    found: list[Portion] = []
    for label, count in accepted.items():
        made = max(portion.stop for portion in shards if portion.labels == (label,))
        if count < spec.per_class:
            found += cut([label], made, _stop(spec, accepted=count, made=made), spec.shard_size)
    return found


def _stop(spec: Synthesize, *, accepted: int, made: int) -> int:
    """Up to which index a class goes next: a tenth beyond what its rate asks for, 64 more at least."""
    rate = max(accepted / made, _LEAST_RATE) if made else _GUESS
    more = max(_LEAST, math.ceil(_MORE * (spec.per_class - accepted) / rate))
    return min(spec.per_class * spec.max_attempts, made + more)
