"""The candidate plan: which images each shard of a generating job makes, as blocks of indices of some classes.

A plan is one object with a line a shard. `generate` accepts every candidate and knows its plan at once; `synthesize`
starts with a guess and extends the plan until enough candidates pass. An extension depends on how many were accepted,
never on who made which one when, so any number of workers makes the same candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.jobs.specs import Generate, Synthesize
from contract.keys.jobs import JobKeys
from contract.records import Record

_GUESS = 0.8
"""Assumed acceptance rate before anything is known."""
_LEAST_RATE, _LEAST = 1 / 50, 64
_MORE = 1.1


class CandidateBlock(Record):
    """The images `start` to `stop` − 1 of each of some classes, ordered by index and then by class."""

    labels: tuple[int, ...]
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.labels) * (self.stop - self.start)

    def images(self) -> Iterator[tuple[int, int]]:
        """Yield class and index of each image, in order."""
        return ((label, index) for index in range(self.start, self.stop) for label in self.labels)


def cut(labels: Sequence[int], start: int, stop: int, size: int) -> Iterator[CandidateBlock]:
    """Cut the images `start` to `stop` − 1 of each class into blocks of about `size`, each with all the classes."""
    step = max(1, size // len(labels))
    for first in range(start, stop, step):
        yield CandidateBlock(labels=tuple(labels), start=first, stop=min(first + step, stop))


def write(store: ObjectStore, job: str, blocks: Iterable[CandidateBlock]) -> None:
    """Write the block of every shard of a job, in place of what there is."""
    store.put(JobKeys(job).candidate_plan, _to_lines(blocks))


def begin(store: ObjectStore, job: str, blocks: Iterable[CandidateBlock]) -> None:
    """Write the first blocks of a job, unless it has some: a synthesis may have added more."""
    store.put_if_absent(JobKeys(job).candidate_plan, _to_lines(blocks))


def read(store: ObjectStore, job: str) -> list[CandidateBlock]:
    """Return the block of every shard of a job, or nothing if it is not planned."""
    return [CandidateBlock.model_validate_json(line) for line in _lines(store, job)]


def read_block(store: ObjectStore, job: str, shard: int) -> CandidateBlock:
    """Return the block of one shard; only its line is parsed."""
    return CandidateBlock.model_validate_json(_lines(store, job)[shard])


def _to_lines(blocks: Iterable[CandidateBlock]) -> bytes:
    return "".join(f"{block.model_dump_json()}\n" for block in blocks).encode()


def _lines(store: ObjectStore, job: str) -> list[bytes]:
    try:
        return store.get(JobKeys(job).candidate_plan).splitlines()
    except ObjectNotFound:
        return []


def whole_plan(spec: Generate) -> list[CandidateBlock]:
    """Return the blocks of a generation: equally many images of each class, and one more of the first for the rest."""
    rows, rest = divmod(spec.count, len(spec.classes))
    whole = list(cut(spec.classes, 0, rows, spec.shard_size))
    return [*whole, *([CandidateBlock(labels=spec.classes[:rest], start=rows, stop=rows + 1)] if rest else [])]


def initial_plan(spec: Synthesize) -> list[CandidateBlock]:
    """Return the blocks that a synthesis starts with, as many of each class as a guess of its acceptance asks for."""
    return [
        block
        for label in spec.classes
        for block in cut([label], 0, _stop(spec, label, accepted=0, made=0), spec.shard_size)
    ]


def next_candidates(
    spec: Synthesize, blocks: Sequence[CandidateBlock], accepted: Mapping[int, int]
) -> list[CandidateBlock]:
    """Return the blocks still to be made: none for a class that has enough images or has used up its candidates.

    `blocks` are those made so far, and `accepted` counts what was accepted of each class.
    """
    found: list[CandidateBlock] = []
    for label, count in accepted.items():
        made = max(block.stop for block in blocks if block.labels == (label,))
        if count < spec.wanted(label):
            found += cut([label], made, _stop(spec, label, accepted=count, made=made), spec.shard_size)
    return found


def _stop(spec: Synthesize, label: int, *, accepted: int, made: int) -> int:
    """Return the index before which a class stops next: a tenth more than its acceptance rate asks for, at least 64."""
    rate, wanted = max(accepted / made, _LEAST_RATE) if made else _GUESS, spec.wanted(label)
    more = max(_LEAST, math.ceil(_MORE * (wanted - accepted) / rate))
    return min(wanted * spec.max_attempts, made + more)
