"""Turns Label Studio annotations into verdicts on a job's labels: one verdict per version, however often it arrives.

A verdict is named by the annotation and the time of its version, so the same one is the same object. A newer version
takes the place of the one before, even if it has no single label; a deleted annotation takes its verdict back. What
comes later and is older changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.data.label_rows import OK
from contract.errors import InvalidInput
from contract.jobs import results
from contract.jobs.commits import in_parallel
from contract.jobs.results import Row
from contract.jobs.reviews.records import Verdict, verdict_of
from producer.jobs.import_report import MOST_NAMED, ImportReport
from producer.jobs.imported import Imported, Note
from producer.jobs.label_studio import Annotation, Event

_COLUMNS = ("key", "uri", "sha256", "label", "score", "model", "status")
_AHEAD_SECONDS = 300.0
"""How far ahead of ours another machine's clock may be: a verdict of the far future would count for ever. A deleted
annotation has no label until then, so that versions from before its deletion do not count if they come late."""


def bring(
    store: ObjectStore,
    job: str,
    event: Event,
    *,
    by: str,
    now: float | None = None,
    note: Note = lambda named, stands: None,
) -> ImportReport:
    """Write the verdicts of an export or of a webhook's event; `by` is who brings them."""
    latest = (time.time() if now is None else now) + _AHEAD_SECONDS
    rows = _rows(store, job, {one.key for one in event.given if one.key} | {one.uri for one in event.given if one.uri})
    # Oldest first: of two versions in one file the newer one stands.
    placed = [(one, rows.of(one)) for one in sorted(event.given, key=lambda one: one.at)]
    unknown = [one.key or one.uri or f"annotation {one.id}" for one, row in placed if row is None]
    known = [(one, row) for one, row in placed if row is not None]
    newest = _newest(known)
    labelled: list[tuple[Verdict, float]] = []
    marks, unclear = [(id, latest) for id in event.deleted], list[str]()
    for one, row in newest:
        verdict, why = _verdict(one, row, by=by, latest=latest)
        if verdict is not None:
            labelled.append((verdict, one.at))
            continue
        unclear.append(f"{one.key or one.uri}: annotation {one.id}, {why}")
        if not one.label and one.id and 0 < one.at <= latest:
            marks.append((one.id, one.at))
    there = Imported(store, job, by, note)
    for _ in in_parallel(lambda mark: there.mark(*mark), marks):
        pass
    there.look()
    added = list(in_parallel(lambda said: there.add(*said), labelled))
    if any(added):
        there.look({verdict.image for (verdict, _), new in zip(labelled, added, strict=True) if new})
    ids = dict.fromkeys([*(id for id, _ in marks), *(verdict.annotation for verdict, _ in labelled)])
    return ImportReport(
        job=job,
        annotations=len(event.given) + len(event.deleted),
        added=sum(added),
        known=len(known) - len(newest) + added.count(False),
        withdrawn=sum(in_parallel(there.settle, ids)),
        unclear=len(unclear),
        unknown=len(unknown),
        unclear_named=tuple(unclear[:MOST_NAMED]),
        unknown_named=tuple(unknown[:MOST_NAMED]),
    )


def _newest(known: Sequence[tuple[Annotation, Row]]) -> list[tuple[Annotation, Row]]:
    """Return the newest version of each annotation; those without an id are all kept, to be counted."""
    found = {one.id or f"{number} without": (one, row) for number, (one, row) in enumerate(known)}
    return list(found.values())


def _verdict(one: Annotation, row: Row, *, by: str, latest: float) -> tuple[Verdict | None, str]:
    """Return the verdict of an annotation on a row, or why there is none."""
    if not 0 <= one.at <= latest:
        return None, "its time is before 1970 or ahead of ours"
    if not one.label:
        return None, one.why
    try:
        verdict = verdict_of(row, one.label, by=one.by, now=one.at)
    except (InvalidInput, ValidationError):
        return None, "its label cannot be one"
    return verdict.model_copy(update={"annotation": one.id, "imported_by": by}), ""


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
