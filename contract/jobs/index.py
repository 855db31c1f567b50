"""The index of jobs in the bucket: which ended when, whose retention is over when, and which need another's images.

Its entries are empty objects whose names say everything, so that a listing in order reads it, a second write changes
nothing, and nobody has to merge anything. It is derived: an entry counts only if the job still says the same, and
`contract.jobs.retention` builds it anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from contract.backend import uploads
from contract.backend.objects import ObjectStore
from contract.datasets.versions import read_version
from contract.errors import JobConflict, ObjectNotFound
from contract.jobs.specs import AnySpec, Synthesize
from contract.jobs.status import Status
from contract.keys.bucket import JOBS
from contract.keys.index import (
    ENDED,
    EXPIRES,
    deleting,
    ended_entry,
    expires_entry,
    parse_ended,
    parse_expires,
    uses_entry,
    uses_prefix,
    version_entry,
)
from contract.keys.jobs import JobKeys

DAY_MS = 86_400_000


def ended_ms(end: Status) -> int:
    """Return when a job ended, in milliseconds since the epoch; 0 if its end does not say."""
    try:
        return max(0, int(1000 * datetime.fromisoformat(end.finished_at or end.created_at).timestamp()))
    except (ValueError, OverflowError):
        return 0


def entries(spec: AnySpec, end: Status, run: int) -> tuple[str, ...]:
    """Return the keys of the entries of a run of a job that ended so."""
    at, days = ended_ms(end), spec.keep_days
    entry = ended_entry(at, spec.id, run, own=days is not None)
    return (entry,) if days is None else (entry, expires_entry(at + int(days * DAY_MS), spec.id))


def record_end(store: ObjectStore, spec: AnySpec, end: Status, run: int) -> None:
    """Enter a run that has ended, in place of earlier ones."""
    current = entries(spec, end, run)
    for key in current:
        store.put(key, b"")
    remove_earlier(store, spec, run, keep=current)


def remove_earlier(store: ObjectStore, spec: AnySpec, run: int, *, keep: Collection[str] = ()) -> None:
    """Remove the entries of the runs of a job before `run`, but for those in `keep`."""
    earlier = {key for number, was in all_ends(store, spec.id, run) for key in entries(spec, was, number)}
    store.delete_all(earlier.difference(keep))


def all_ends(store: ObjectStore, id: str, runs: int) -> Iterator[tuple[int, Status]]:
    """Yield the number and the end of each of a job's first `runs` runs that has one."""
    for run in range(runs):
        try:
            yield run, Status.model_validate_json(store.get(JobKeys(id).run_end(run)))
        except ObjectNotFound:
            continue


def ended(store: ObjectStore, *, after: str = "", at_once: int = 1000) -> Iterator[tuple[str, str, int, bool]]:
    """Yield the key, the job, the run and whether the job has a retention of its own, in the order of the ends.

    The newest comes first; entries up to the key `after` are left out. `at_once` of them are listed with one request.
    """
    for entry in store.list(ENDED, after=after, at_once=at_once):
        found = parse_ended(entry.key)
        if found is not None:
            yield (entry.key, *found)


def overdue(store: ObjectStore, now_ms: int) -> Iterator[tuple[str, str]]:
    """Yield the entry and the id of each job whose own retention is over."""
    for entry in store.list(EXPIRES):
        found = parse_expires(entry.key)
        if found is None:
            continue
        if found[0] > now_ms:
            return
        yield entry.key, found[1]


def uses(store: ObjectStore, spec: AnySpec) -> tuple[str, ...]:
    """Return the other jobs in which images of a job lie."""
    sources = [*spec.source.each]
    if isinstance(spec, Synthesize) and spec.away_from is not None:
        sources.append(spec.away_from)
    found = []
    for source in sources:
        if source.kind == "job":
            found.append(source.uri)
            continue
        if source.kind == "review":
            found.append(source.uri.partition("@")[0])
            continue
        for uri in source.uri.split():
            inside = uri.removeprefix(f"s3://{store.bucket}/{JOBS}")
            if inside != uri:
                found.append(inside.partition("/")[0])
    return tuple(sorted({id for id in found if id and id != spec.id}))


def record_uses(store: ObjectStore, spec: AnySpec) -> None:
    """Enter what a job needs of others, before it is submitted; raises UnknownUpload for what is being deleted."""
    uploads.use(store, spec.model_dump_json())
    for id in uses(store, spec):
        store.put(uses_entry(id, spec.id), b"")
    if isinstance(spec, Synthesize) and spec.extend is not None:
        store.put(version_entry(spec.id, spec.extend.dataset, spec.extend.number), b"")


def users(store: ObjectStore, id: str) -> list[str]:
    """Return the jobs that need images of a job."""
    prefix = uses_prefix(id)
    named = [entry.key.removeprefix(prefix) for entry in store.list(prefix)]
    return [by for by in named if "@" not in by and store.exists(JobKeys(by).spec)]


def dataset_of(store: ObjectStore, id: str) -> str | None:
    """Return the dataset that holds the images of a job as one of its versions, None if there is none."""
    prefix = uses_prefix(id)
    for entry in store.list(prefix):
        dataset, _, number = entry.key.removeprefix(prefix).partition("@")
        version = read_version(store, dataset, int(number)) if number else None
        if version is not None and version.job == id:
            return dataset
    return None


def check_not_deleted(store: ObjectStore, id: str) -> None:
    """Raise JobConflict for a job that is being deleted."""
    if store.exists(deleting(id)):
        raise JobConflict(f"The job {id} is being deleted; choose another --job, or wait until `imagemill gc` is done.")
