"""Deletes jobs, and what jobs leave behind, so that whoever dies in the middle leaves what can be gone on with.

A job is deleted in an order in which nobody mistakes it for another state: what is to be done is written first
(`index/deleting/JOB`), then everything goes but the spec and the ends, then the spec, which frees the id, then the
ends, the index, the ledger, and the note itself. Until the note is gone, the id can be neither submitted nor resumed.

Models are never touched, and a job is kept as long as another one needs its images.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import cast

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, InvalidSettings, JobConflict, ObjectDamaged, ObjectNotFound, UnknownJob
from contract.jobs import index, outputs
from contract.jobs.commits import in_parallel, iter_commits
from contract.jobs.ends import read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, read_spec
from contract.jobs.specs import AnySpec, ImagesSpec
from contract.keys.bucket import JOBS
from contract.keys.index import DELETING, INDEX_STATE, deleting, ended_before, uses_entry, uses_prefix
from contract.keys.jobs import JobKeys
from contract.records import Record

log = logging.getLogger(__name__)

_ABANDONED_SECONDS = 7 * 86_400
"""Age of the newest file of an upload whose job was never submitted, before it is deleted."""
_ATTEMPT_SECONDS = 86_400
_THREADS = 8


@dataclass(frozen=True)
class Found:
    """Something that nobody needs: what it is, of which job, and its objects."""

    what: str
    job: str
    objects: int
    bytes: int


class _Note(Record):
    """What is to be deleted beside a job's own objects."""

    entries: tuple[str, ...] = ()


def check_removable(store: ObjectStore, id: str, *, together: frozenset[str] = frozenset()) -> None:
    """Raise UnknownJob, or JobConflict if the job has not ended or another one needs it; `together` go with it."""
    read_spec(store, id)
    if read_standing(store, id).end is None:
        raise JobConflict(f"The job {id} has not ended; cancel it first, with `imagemill cancel {id}`.")
    others = [by for by in index.users(store, id) if by not in together]
    if others:
        raise JobConflict(f"{others[0]} needs the images of {id}; remove that job first, or both with one command.")
    if dataset := index.dataset_of(store, id):
        raise JobConflict(
            f"The dataset {dataset} holds the images of {id}; `imagemill datasets rm {dataset}` removes that first."
        )


def remove(backend: Backend, id: str) -> Found:
    """Delete a job that has ended, with its results below its own prefix; raise JobConflict if it runs again.

    Whatever it wrote elsewhere (`--to`) stays. It completes a removal that was interrupted. With credentials that may
    not delete jobs, it leaves the job to the controller's next tick.
    """
    store = backend.store
    if not store.exists(deleting(id)):
        _write_note(store, id)
    if _resumed(store, id):
        store.delete(deleting(id))
        raise JobConflict(f"The job {id} was taken up again; it stays.")
    try:
        return _complete(backend, id)
    except InvalidSettings as error:
        log.info("The controller deletes %s: %s", id, error)
        return Found("left to the controller", id, 0, 0)


def _write_note(store: ObjectStore, id: str) -> None:
    """Say what is to be deleted for a job, before anything is."""
    entries: tuple[str, ...] = ()
    try:
        spec, runs = read_spec(store, id), read_standing(store, id).run + 1
    except (UnknownJob, InvalidInput, ObjectDamaged):
        pass  # an upload without a job, or one of a newer version
    else:
        entries = (
            *(key for run, end in index.all_ends(store, id, runs) for key in index.entries(spec, end, run)),
            *(uses_entry(other, id) for other in index.uses(store, spec)),
        )
    store.put(deleting(id), _Note(entries=entries).to_json())


def _resumed(store: ObjectStore, id: str) -> bool:
    """Return whether a job is under way; one whose spec is gone is not."""
    return store.exists(JobKeys(id).spec) and read_standing(store, id).end is None


def _complete(backend: Backend, id: str) -> Found:
    store, own = backend.store, JobKeys(id)
    last = {own.spec, own.end}
    found = list(store.list(own.root))
    rest = [entry.key for entry in found if entry.key not in last and not entry.key.startswith(own.run_prefix)]
    store.delete_all(rest)
    store.delete(own.spec)
    # The ends behind the spec: a spec without an end is a job that runs.
    store.delete_all([entry.key for entry in store.list(own.root)])
    store.delete(own.active)
    try:
        note = _Note.model_validate_json(store.get(deleting(id)))
    except ObjectNotFound:  # somebody else has completed it
        note = _Note()
    store.delete_all((*note.entries, *(entry.key for entry in store.list(uses_prefix(id)))))
    backend.ledger.drop(id)
    store.delete(deleting(id))
    log.info("%s was deleted: %d objects", id, len(found))
    return _sum("ended job", id, found)


def interrupted(store: ObjectStore) -> list[str]:
    """Return the jobs whose deletion has begun and not ended."""
    return [entry.key.removeprefix(DELETING) for entry in store.list(DELETING)]


# Retention


def _over(store: ObjectStore, keep_days: float, now: float) -> Iterator[tuple[str, str]]:
    """Yield the entry and the id of each job whose retention seems to be over."""
    now_ms = int(now * 1000)
    yield from index.overdue(store, now_ms)
    if keep_days:
        before = ended_before(now_ms - int(keep_days * index.DAY_MS))
        yield from ((key, id) for key, id, _, own in index.ended(store, after=before) if not own)


def expire(
    backend: Backend,
    keep_days: float,
    *,
    most: int | None = None,
    seconds: float | None = None,
    dry_run: bool = False,
) -> list[Found]:
    """Delete the jobs whose retention is over, unless another one needs their images; return what was deleted.

    A job without a retention of its own has `keep_days`, 0 being for ever. With `most`, as many are looked at, chosen
    at random, so that those which must stay do not stand before the others.
    """
    store, until = backend.store, None if seconds is None else time.monotonic() + seconds
    candidates = list(islice(_over(store, keep_days, time.time()), None if most is None else 50 * most))
    if most is not None:
        random.shuffle(candidates)
    found: list[Found] = []
    for key, id in candidates[:most]:
        if until is not None and time.monotonic() > until:
            break
        try:
            found.extend(_expire(backend, key, id, dry_run=dry_run))
        except InvalidSettings:
            raise
        except (InvalidInput, ObjectDamaged, ValueError) as error:
            log.warning("%s stays, though its retention is over: %s", id, error)
    return found


def _expire(backend: Backend, key: str, id: str, *, dry_run: bool) -> list[Found]:
    """Delete a job whose entry says that its retention is over, if that entry stands and nobody needs the job."""
    store = backend.store
    if not _stands(store, key, id):
        if not dry_run:
            store.delete(key)
    elif not index.users(store, id) and index.dataset_of(store, id) is None:
        return [size(store, id) if dry_run else remove(backend, id)]
    return []


def _stands(store: ObjectStore, key: str, id: str) -> bool:
    """Return whether an entry is of the end that stands; a job that was taken up again has older ones."""
    try:
        spec = read_spec(store, id)
    except UnknownJob:
        return False
    now = read_standing(store, id)
    return now.end is not None and index.ended_ms(now.end) > 0 and key in index.entries(spec, now.end, now.run)


# What jobs leave behind


def sweep(store: ObjectStore, id: str, *, dry_run: bool = False) -> list[Found]:
    """Delete what a job left behind; return what it was."""
    found = []
    for what, files in _leftovers(store, id, time.time()):
        if not dry_run:
            # In the order of their names; nothing refers to them, so any part of them may be gone.
            store.delete_all(entry.key for entry in files)
        found.append(_sum(what, id, files))
    return found


def _leftovers(store: ObjectStore, id: str, now: float) -> list[tuple[str, list[Entry]]]:
    """Return what a job left that it cannot need any more, by what it is.

    Of a job that has not succeeded nothing is listed, since it may be resumed, and of one that has, nothing that a
    retry, an export or a report would read.
    """
    own = JobKeys(id)
    try:
        spec = read_spec(store, id)
    except UnknownJob:
        files = list(store.list(own.root))
        newest = max((entry.modified for entry in files), default=now)
        return [("upload without a job", files)] if newest < now - _ABANDONED_SECONDS else []
    end = read_standing(store, id).end
    if end is None or end.state != "succeeded":
        return []
    found = [("checkpoints", list(store.list(own.checkpoint_prefix))), ("attempts", _attempts(store, spec, now))]
    if kind_of(spec).name == "synthesize":
        found.append(("candidates", list(store.list(own.candidate_prefix))))
    return [(what, files) for what, files in found if files]


def _attempts(store: ObjectStore, spec: AnySpec, now: float) -> list[Entry]:
    """Return what attempts wrote in the job's own folder and no commit names.

    A twin that lost its lease may still write for a while, so nothing that is younger than a day is listed.
    """
    from contract.data import image_index  # it imports Arrow, which a controller has no other use for

    own, images = JobKeys(spec.id), kind_of(spec).makes == "images"
    commits = image_index.outcome(store, cast("ImagesSpec", spec)) if images else iter_commits(store, spec.id)
    left = {key for bucket, key in outputs.leftovers(store, spec, commits) if bucket == store.bucket}
    if not left:
        return []
    listed = (entry for prefix in (own.attempt_prefix, f"{own.root}out/") for entry in store.list(prefix))
    return [entry for entry in listed if entry.key in left and entry.modified < now - _ATTEMPT_SECONDS]


# The index, built from the bucket


def build(store: ObjectStore, most: int) -> bool:
    """Enter at most `most` jobs that ended before there was an index; return whether all are entered.

    It continues where it stopped, also after a crash.
    """
    state = _state(store) or _State()
    if state.complete:
        return True
    # A prefix sorts before its own keys: continue behind all of them.
    after = f"{JOBS}{state.after}/{chr(0x10FFFF)}" if state.after else ""
    ids: list[str] = []
    for entry in store.list(JOBS, folders=True, after=after):
        if len(ids) == most:
            break
        if entry.key.endswith("/"):
            ids.append(entry.key.removeprefix(JOBS).rstrip("/"))
    for _ in in_parallel(partial(_enter, store), ids, threads=_THREADS):
        pass
    done = len(ids) < most
    store.put(INDEX_STATE, _State(after=ids[-1] if ids else state.after, complete=done).to_json())
    return done


def start_build(store: ObjectStore) -> None:
    """Have the index built anew; until that is done, jobs are listed without it."""
    store.put(INDEX_STATE, _State().to_json())


class _State(Record):
    after: str = ""
    complete: bool = False


def _state(store: ObjectStore) -> _State | None:
    try:
        return _State.model_validate_json(store.get(INDEX_STATE))
    except ObjectNotFound:
        return None


def _enter(store: ObjectStore, id: str) -> None:
    try:
        spec: AnySpec = read_spec(store, id)
    except (UnknownJob, InvalidInput, ObjectDamaged):
        return
    index.record_uses(store, spec)
    now = read_standing(store, id)
    if now.end is not None:
        index.record_end(store, spec, now.end, now.run)


def _sum(what: str, job: str, entries: list[Entry]) -> Found:
    return Found(what, job, len(entries), sum(entry.size for entry in entries))


def size(store: ObjectStore, id: str) -> Found:
    """Return how much a job takes in the bucket."""
    return _sum("ended job", id, list(store.list(JobKeys(id).root)))
