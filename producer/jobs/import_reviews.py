"""Turns Label Studio annotations into verdicts on a job's labels: one verdict per version, however often it arrives.

A verdict is named by the annotation and the time of its version, so the same one is the same object. A newer version
takes the place of the one before, even if it has no single label; a deleted annotation takes its verdict back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.data.label_rows import OK
from contract.errors import InvalidInput
from contract.jobs import results
from contract.jobs.commits import in_parallel
from contract.jobs.results import Row
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import Named, Verdict, verdict_of
from producer.jobs.import_report import MOST_NAMED, ImportReport
from producer.jobs.label_studio import Annotation, Event

_COLUMNS = ("key", "uri", "sha256", "label", "score", "model", "status")
_AHEAD_SECONDS = 300.0
"""How far ahead of ours another machine's clock may be; a verdict of the far future would count for ever."""


@dataclass
class _Counts:
    added: int = 0
    known: int = 0
    withdrawn: int = 0
    unclear: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def bring(store: ObjectStore, job: str, event: Event, *, by: str, now: float | None = None) -> ImportReport:
    """Write the verdicts of an export or of a webhook's event; `by` is who brings them."""
    counts = _Counts()
    at = time.time() if now is None else now
    there = _Imported(store, job)
    rows = _rows(store, job, {one.key for one in event.given if one.key} | {one.uri for one in event.given if one.uri})
    # Oldest first: of two versions in one file the newer one stands.
    placed = [(one, rows.of(one)) for one in sorted(event.given, key=lambda one: one.at)]
    for one, row in placed:
        if row is None:
            counts.unknown.append(one.key or one.uri or f"annotation {one.id}")
    known = [(one, row) for one, row in placed if row is not None]
    for added, taken, why in in_parallel(lambda pair: _bring(there, *pair, by=by, now=at), _newest(known)):
        counts.added += added
        counts.known += not added and not why
        counts.withdrawn += taken
        counts.unclear += [why] if why else []
    counts.known += len(known) - len(_newest(known))
    for id in event.deleted:
        counts.withdrawn += there.take_back(id, by)
    return ImportReport(
        job=job,
        annotations=len(event.given) + len(event.deleted),
        added=counts.added,
        known=counts.known,
        withdrawn=counts.withdrawn,
        unclear=len(counts.unclear),
        unknown=len(counts.unknown),
        unclear_named=tuple(counts.unclear[:MOST_NAMED]),
        unknown_named=tuple(counts.unknown[:MOST_NAMED]),
    )


def _newest(known: Sequence[tuple[Annotation, Row]]) -> list[tuple[Annotation, Row]]:
    """Return the newest version of each annotation; those without an id are all kept, to be counted."""
    found = {one.id or f"{number} without": (one, row) for number, (one, row) in enumerate(known)}
    return list(found.values())


def _bring(there: _Imported, one: Annotation, row: Row, *, by: str, now: float) -> tuple[bool, int, str]:
    """Write the verdict of an annotation; return whether it is new, how many were taken back, and what is unclear."""
    named, name = f"{one.key or one.uri}: annotation {one.id}", f"{int(one.at * 1000):013d}-{_stem(one.id)}"
    if not one.label:
        return False, there.take_back(one.id, by, before=name), f"{named}, {one.why}"
    if not 0 <= one.at <= now + _AHEAD_SECONDS:
        return False, 0, f"{named}, its time is before 1970 or ahead of ours"
    try:
        verdict = verdict_of(row, one.label, by=one.by, now=one.at)
    except (InvalidInput, ValidationError):
        return False, 0, f"{named}, its label cannot be one"
    verdict = verdict.model_copy(update={"annotation": one.id, "imported_by": by})
    added, taken = there.put(Named(name, verdict.image), verdict, by)
    return added, taken, ""


class _Imported:
    """The verdicts of a job that came from Label Studio, found by their names."""

    def __init__(self, store: ObjectStore, job: str) -> None:
        self._store, self._job = store, job
        self._stems: dict[str, list[Named]] = {}
        for named in verdicts.listed(store, job):
            self._stems.setdefault(named.name[-8:], []).append(named)

    def put(self, name: Named, verdict: Verdict, by: str) -> tuple[bool, int]:
        """Write a verdict unless it was written before, or a newer version was; take older versions back."""
        others = [one for one in self._of(verdict.annotation) if one != name]
        if any(one.name >= name.name for one in others):
            return False, 0
        added = verdicts.put(self._store, self._job, name, verdict)
        for one in others:
            self._withdraw(one, by)
        return added, len(others)

    def take_back(self, id: str, by: str, *, before: str = "") -> int:
        """Take the verdicts of an annotation back, all or those of versions before a name; return how many stood."""
        found = [one for one in self._of(id) if not before or one.name < before]
        for one in found:
            self._withdraw(one, by)
        return len(found)

    def _of(self, id: str) -> list[Named]:
        candidates = self._stems.get(_stem(id), [])
        return [one for one in candidates if verdicts.read(self._store, self._job, one)[0].annotation == id]

    def _withdraw(self, named: Named, by: str) -> None:
        verdicts.withdraw(self._store, self._job, named, by=by, imported=True)


class _Rows:
    """The rows of a job that tasks may mean, by key and by address."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[Row]] = {}
        self.by_uri: dict[str, Row] = {}

    def add(self, row: Row) -> None:
        self.by_key.setdefault(row["key"], []).append(row)
        self.by_uri[row["uri"]] = row

    def of(self, one: Annotation) -> Row | None:
        """Return the row of the image with the address of the task, else the only one with its key."""
        exact = self.by_uri.get(one.uri)
        if exact is not None and (not one.key or exact["key"] == one.key):
            return exact
        named = self.by_key.get(one.key, []) if one.key else []
        return named[0] if len(named) == 1 else None


def _rows(store: ObjectStore, job: str, wanted: Iterable[str]) -> _Rows:
    """Return the labelled rows whose key or address is among those wanted; one shard is in memory at a time."""
    found, names = _Rows(), pa.array(sorted(wanted), pa.string())
    if not len(names):
        return found
    for _, table in results.tables(store, job):
        here = table.select(_COLUMNS)
        named = pc.or_(pc.is_in(here["key"], names), pc.is_in(here["uri"], names))
        for row in here.filter(pc.and_(named, pc.equal(here["status"], OK))).to_pylist():
            found.add(row)
    return found


def _stem(id: str) -> str:
    """Return the end of the names of an annotation's verdicts: 32 bits of a hash of its id."""
    return hashlib.sha256(f"label-studio {id}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
