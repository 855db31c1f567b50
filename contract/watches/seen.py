"""The seen-set of a watch: which objects are planned already, as sorted runs of hashes in the bucket.

A closed segment leaves one run, and runs are merged into larger ones. A run is named by the segments that it covers
and by a digest of its content, so nothing is ever overwritten, a damaged one is noticed, and the set is the union of
whatever runs there are: a compaction deletes only what it has merged into a run that is written. Killed anywhere, or
done by two controllers at once, it leaves runs that overlap, which the next one merges.

    <prefix>000000-000041-<digest>.seen     16 bytes a hash, sorted, distinct

A segment that no run covers shows as a gap, and is written again from its plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from contract.backend.objects import ObjectStore
from contract.errors import ObjectDamaged, ObjectNotFound
from contract.watches.runs import WIDTH, Run, RunName, choose, gaps, merge

LARGEST = 4 * 2**20
"""Hashes of the largest run that is made of others; it takes 64 MB, and merging it as much again."""
_LOOKS = 5


class SeenSet:
    """The hashes below one prefix of the bucket, held in memory, 16 bytes each, and those of the open segment.

    It is not safe for threads. Each call may raise what the store raises, and leaves the set as it was.
    """

    def __init__(self, store: ObjectStore, prefix: str, *, largest: int = LARGEST) -> None:
        self._store, self._prefix, self._largest = store, prefix, largest
        self._runs: dict[RunName, Run] = {}
        self._open: set[bytes] = set()

    def __len__(self) -> int:
        """Return how many hashes are held; one that two runs hold counts twice."""
        return sum(map(len, self._runs.values())) + len(self._open)

    def load(self, segments: int) -> list[int]:
        """Read the runs that are not held yet; return which of the first `segments` segments no run covers.

        The caller closes these again, with the hashes of their plans. Raises ObjectDamaged for an object that is not
        a whole run.
        """
        segments = max([segments, *(name.last + 1 for name in self._runs)])
        missing: list[int] = []
        for look in range(_LOOKS):
            try:
                there = self._listed()
                fresh = {name: self._read(name) for name in sorted(there) if name not in self._runs}
            except ObjectNotFound:
                if look == _LOOKS - 1:
                    raise
                continue  # it was merged meanwhile; the next listing names the run that holds it
            missing = gaps(there, segments)
            # What is gone was merged. It stays as long as the run that holds it is missing here: a listing in which
            # an object moves to another name may show neither.
            self._runs = {name: run for name, run in self._runs.items() if missing or name in there} | fresh
            if not missing:
                break
        return missing

    def unseen(self, hashes: Iterable[bytes]) -> list[bytes]:
        """Return those hashes, of 16 bytes each, that were neither loaded nor added, once each, in order."""
        runs = sorted(self._runs.values(), key=len, reverse=True)
        left = [hash for hash in dict.fromkeys(hashes) if hash not in self._open]
        for run in runs:
            left = run.absent(left)
        return left

    def add(self, hashes: Iterable[bytes]) -> None:
        """Add to the open segment what is planned in it."""
        self._open.update(hashes)

    def close_segment(self, segment: int, hashes: Collection[bytes] | None = None) -> None:
        """Write the run of a segment: `hashes`, or those that were added. It is safe to do twice.

        Without `hashes` the next segment begins empty.
        """
        run = Run.of(self._open if hashes is None else hashes)
        name = RunName.of(segment, segment, run.data)
        self._store.put_if_absent(self._prefix + name.name, bytes(run.data))
        self._runs[name] = run
        if hashes is None:
            self._open = set()
        else:
            self._open.difference_update(hashes)

    def compact(self) -> bool:
        """Merge the runs that are due, once; return whether there were some."""
        names = sorted(self._runs)
        chosen = [names[n] for n in choose([(name, len(self._runs[name])) for name in names], self._largest)]
        if not chosen:
            return False
        data = merge([self._runs[name] for name in chosen])
        merged = RunName.of(chosen[0].first, max(name.last for name in chosen), data)
        run = self._runs.get(merged) or Run(data)
        if merged not in chosen and not self._store.put_if_absent(self._prefix + merged.name, bytes(data)):
            try:
                run = self._read(merged)
            except ObjectNotFound:
                return False  # another controller has merged it into a larger one; `load` finds that
        self._runs = {name: held for name, held in self._runs.items() if name not in chosen} | {merged: run}
        self._store.delete_all(self._prefix + name.name for name in chosen if name != merged)
        return True

    def forget(self) -> None:
        """Delete all runs, also of other controllers."""
        self._store.delete_all([entry.key for entry in self._store.list(self._prefix)])
        self._runs, self._open = {}, set()

    def _listed(self) -> set[RunName]:
        found = set()
        for entry in self._store.list(self._prefix):
            name = RunName.parse(entry.key.removeprefix(self._prefix))
            if name is None:
                raise ObjectDamaged(
                    f"s3://{self._store.bucket}/{entry.key} is not one of the runs of what a watch has seen; find out "
                    "who wrote it there, and delete it."
                )
            found.add(name)
        return found

    def _read(self, name: RunName) -> Run:
        """Return a run; raises ObjectDamaged if its content is not what its name says."""
        data, digest = bytearray(), hashlib.sha256()
        for piece in self._store.pieces(self._prefix + name.name):
            data += piece
            digest.update(piece)
        if len(data) % WIDTH or f"-{digest.hexdigest()[:16]}." not in name.name:
            raise ObjectDamaged(
                f"s3://{self._store.bucket}/{self._prefix}{name.name} is not what was written there ({len(data):,} "
                "bytes, and another sha256); delete it, and it is written again from the plans of its segments."
            )
        return Run(data)
