"""Sorted runs of 16-byte hashes: searched, merged, and named by their content. It knows neither watches nor the store.

A million hashes take 16 MB; as a set of Python objects they would take 110 MB.
"""

from __future__ import annotations

import hashlib
import re
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from contract.keys.names import content_name

WIDTH = 16
"""Bytes of a hash."""
_DIGITS = 6  # 10^6 segments are 114 years of an hour each
_NAME = re.compile(r"(\d{6,})-(\d{6,})-[0-9a-f]{16}\.seen")
_FEW, _MANY = 64, 2**14
_FACTOR, _SMALL = 3, 4096


@dataclass(frozen=True, order=True)
class RunName:
    """Which segments a run covers, `first` to `last`, and its name, which holds a digest of its content."""

    first: int
    last: int
    name: str

    @classmethod
    def of(cls, first: int, last: int, data: bytes | bytearray) -> RunName:
        """Return the name of the run with these hashes."""
        stem = f"{first:0{_DIGITS}d}-{last:0{_DIGITS}d}"
        return cls(first, last, content_name(stem, hashlib.sha256(data).hexdigest(), ".seen"))

    @classmethod
    def parse(cls, name: str) -> RunName | None:
        """Return what a name says, or None if it is not the name of a run."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2]), name) if match and int(match[1]) <= int(match[2]) else None


class Run:
    """The sorted, distinct hashes of one run, in one piece of memory."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        # Where the hashes with each first byte begin, or each first two: a search looks at some sixteen hashes.
        self._bytes = 0 if len(self) <= _FEW else 1 if len(self) <= _MANY else 2
        self._starts = _starts(data, self._bytes)

    @classmethod
    def of(cls, hashes: Iterable[bytes]) -> Run:
        """Return the run of some hashes, in any order."""
        return cls(b"".join(sorted(set(hashes))))

    def __len__(self) -> int:
        return len(self.data) // WIDTH

    def absent(self, hashes: Iterable[bytes]) -> list[bytes]:
        """Return those of some hashes, of 16 bytes each, that the run does not hold, in order."""
        find, starts, width, missing = self.data.find, self._starts, self._bytes, []
        for hash in hashes:
            prefix = int.from_bytes(hash[:width], "big")
            high = starts[prefix + 1] * WIDTH
            at = find(hash, starts[prefix] * WIDTH, high)
            while at > 0 and at % WIDTH:  # across two others
                at = find(hash, at + 1, high)
            if at < 0:
                missing.append(hash)
        return missing

    def __getitem__(self, number: int) -> bytes:
        return bytes(self.data[number * WIDTH : (number + 1) * WIDTH])

    def slices(self) -> Iterator[list[bytes]]:
        """Yield the hashes in 256 lists, by their first bytes."""
        low = 0
        for first in range(1, 257):
            high = bisect_left(range(len(self)), bytes([first]), key=self.__getitem__) if first < 256 else len(self)
            yield [self[number] for number in range(low, high)]
            low = high


def merge(runs: Sequence[Run]) -> bytearray:
    """Return the sorted union of some runs; beyond it, a 256th of their hashes is held as objects."""
    merged = bytearray()
    for lists in zip(*(run.slices() for run in runs), strict=True):
        together = [hash for one in lists for hash in one]
        together.sort()  # it finds the sorted parts, and only merges them
        merged += b"".join(dict.fromkeys(together))
    return merged


def choose(runs: Sequence[tuple[RunName, int]], at_most: int) -> range:
    """Return which neighbours among runs, in the order of their names, are to be merged; an empty range if none are.

    `runs` gives the number of hashes in each. Runs that overlap come first: a compaction that was killed left them.
    Else the newest are merged with those older ones that are small, or not three times as large as what is newer, so
    that the number of runs grows with the logarithm of the hashes. Runs of more than `at_most` hashes are not made.
    """
    for number in range(1, len(runs)):
        begin = number
        while begin and runs[begin - 1][0].last >= runs[number][0].first:
            begin -= 1
        if begin < number:
            return range(begin, number + 1)
    begin, newer = len(runs), 0
    for number in range(len(runs) - 1, -1, -1):
        size = runs[number][1]
        if newer + size > at_most:
            break
        if size <= _FACTOR * max(newer, _SMALL):
            begin = number
        newer += size
    return range(begin, len(runs)) if len(runs) - begin > 1 else range(0)


def gaps(covered: Iterable[RunName], segments: int) -> list[int]:
    """Return those of the first `segments` segments that no run covers."""
    there = bytearray(segments)
    for run in covered:
        last = min(run.last, segments - 1)
        if run.first <= last:
            there[run.first : last + 1] = b"\1" * (last + 1 - run.first)
    return [number for number, covers in enumerate(there) if not covers]


def _starts(data: bytes | bytearray, width: int) -> array[int]:
    """Return where the hashes with each value of their first `width` bytes, 0 to 2, begin, and the number of all."""
    numbers: Iterable[int] = data[::WIDTH] if width == 1 else []
    if width == 2:
        pairs = bytearray(len(data) // WIDTH * 2)
        low = 0 if sys.byteorder == "big" else 1
        pairs[low::2], pairs[1 - low :: 2] = data[::WIDTH], data[1::WIDTH]
        numbers = array("H", bytes(pairs))
    counts = Counter(numbers) if width else {0: len(data) // WIDTH}
    starts, total = array("I", [0]), 0
    for prefix in range(256**width):
        total += counts.get(prefix, 0)
        starts.append(total)
    return starts
