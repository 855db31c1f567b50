"""The versions of Label Studio annotations in a job's bucket: verdicts, and marks of those that give no label.

Events come in any order, and several at once. Whoever writes a version looks at the others afterwards, so of two
writers at least one sees both, and takes back what is not the newest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection

from contract.backend.objects import ObjectStore
from contract.errors import ObjectDamaged
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import Named, Unlabelled, Verdict
from contract.keys.jobs import JobKeys, parse_unlabelled
from contract.times import iso

Note = Callable[[Named, bool], None]
"""Is told of each verdict that was written, with true, or taken back; by several threads."""

_FEW = 16
"""Images that are listed one by one; for more, all verdicts of the job are."""


class Imported:
    """The versions of a job's annotations, found by their names; for several threads."""

    def __init__(self, store: ObjectStore, job: str, by: str, note: Note) -> None:
        self._store, self._job, self._by, self._note = store, job, by, note
        self._standing: list[Named] = []
        self._versions: dict[str, list[Named]] = {}
        self._marks: dict[str, list[str]] = {}
        self._look_at_marks()

    def mark(self, id: str, at: float) -> None:
        """Note that an annotation gives no label up to `at`, seconds since the epoch."""
        name = name_of(id, at)
        if name not in self._marks.get(_stem(id), ()):
            record = Unlabelled(annotation=id, by=self._by, at=iso(time.time()) or "")
            self._store.put_if_absent(JobKeys(self._job).unlabelled(name), record.to_json())

    def look(self, images: Collection[str] | None = None) -> None:
        """Look at what is there now; with `images`, at the verdicts on these alone."""
        self._look_at_marks()
        if images is None or len(images) > _FEW:
            self._standing = verdicts.listed(self._store, self._job)
        else:
            others = [one for one in self._standing if one.image not in images]
            listed = [verdicts.listed(self._store, self._job, image) for image in images]
            self._standing = others + [one for some in listed for one in some]
        self._versions = {}
        for named in self._standing:
            self._versions.setdefault(named.name[-8:], []).append(named)

    def add(self, verdict: Verdict, at: float) -> bool:
        """Write the verdict of a version; return False if it or a newer one was known."""
        id, name = verdict.annotation, name_of(verdict.annotation, at)
        named = Named(name, verdict.image)
        newer = [one for one in self._versions.get(_stem(id), ()) if one.name >= name and one != named]
        if any(self._is_of(one, id) for one in newer) or self._marked(id, after=name):
            return False
        if added := verdicts.put(self._store, self._job, named, verdict):
            self._note(named, True)
        return added

    def settle(self, id: str) -> int:
        """Take back every version of an annotation that is not its newest; return how many those were."""
        candidates = self._versions.get(_stem(id), [])
        if len(candidates) < 2 and not any(self._marked(id, after=one.name) for one in candidates):
            return 0
        found = [one for one in candidates if self._is_of(one, id)]
        old = [one for one in found if one != max(found) or self._marked(id, after=one.name)]
        for one in old:
            verdicts.withdraw(self._store, self._job, one, by=self._by, imported=True)
            self._note(one, False)
        return len(old)

    def _look_at_marks(self) -> None:
        self._marks = {}
        for entry in self._store.list(JobKeys(self._job).unlabelled_prefix):
            if name := parse_unlabelled(entry.key):
                self._marks.setdefault(name[-8:], []).append(name)

    def _marked(self, id: str, *, after: str) -> bool:
        """Return whether an annotation gives no label up to a time after that of a name."""
        return any(name > after and self._is_mark_of(name, id) for name in self._marks.get(_stem(id), ()))

    # Two annotations may have one stem, so what has it is read before anything is done for it.

    def _is_of(self, named: Named, id: str) -> bool:
        return verdicts.read(self._store, self._job, named)[0].annotation == id

    def _is_mark_of(self, name: str, id: str) -> bool:
        key = JobKeys(self._job).unlabelled(name)
        try:
            return Unlabelled.model_validate_json(self._store.get(key)).annotation == id
        except ValueError as error:
            raise ObjectDamaged(
                f"s3://{self._store.bucket}/{key} is not what an import writes; delete it, then import again."
            ) from error


def name_of(id: str, at: float) -> str:
    """Return what names a version of an annotation: its time, and 32 bits of a hash of the id."""
    return f"{int(at * 1000):013d}-{_stem(id)}"


def _stem(id: str) -> str:
    return hashlib.sha256(f"label-studio {id}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
