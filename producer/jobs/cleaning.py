"""What `imagemill jobs rm` and `imagemill gc` delete."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, JobConflict, StoreRefused
from contract.jobs import retention
from contract.jobs.commits import in_parallel
from contract.jobs.lifecycle import Backend
from contract.jobs.retention import Found
from contract.jobs.schedules import KEPT, Schedules
from contract.jobs.unused import expire_uploads
from contract.keys.bucket import JOBS, SCHEDULES
from contract.keys.schedules import schedule_ticks
from contract.web.webhooks.outbox import Outbox

log = logging.getLogger(__name__)

_AT_ONCE = 2000
_UPLOAD_SECONDS = 86_400
"""Age of a multipart upload that nobody will complete."""


def remove(backend: Backend, jobs: Sequence[str]) -> Iterator[Found]:
    """Delete jobs; raise JobConflict before any is deleted, if one has not ended or another job needs it."""
    together = frozenset(jobs)
    for job in jobs:
        retention.check_removable(backend.store, job, together=together)
    for job in dict.fromkeys(jobs):
        yield retention.remove(backend, job)


def build_index(store: ObjectStore) -> None:
    """Build the index of jobs anew."""
    retention.start_build(store)
    complete_index(store)


def complete_index(store: ObjectStore) -> None:
    """Enter the jobs that ended before there was an index; a new or an older bucket may lack some."""
    while not retention.build(store, _AT_ONCE):
        pass


def collect(backend: Backend, keep_days: float, keep_uploads_days: float, *, dry_run: bool) -> Iterator[Found]:
    """Delete what nobody needs, and yield what it was; with `dry_run` nothing is deleted."""
    store = backend.store
    for job in retention.interrupted(store):
        if dry_run:
            yield retention.size(store, job)
            continue
        try:
            yield retention.remove(backend, job)
        except JobConflict:
            continue
    expired = retention.expire(backend, keep_days, dry_run=dry_run)
    yield from expired
    gone = {found.job for found in expired}
    folders = (entry.key for entry in store.list(JOBS, folders=True) if entry.key.endswith("/"))
    jobs = (id for id in (key.removeprefix(JOBS).rstrip("/") for key in folders) if id not in gone)
    for found in in_parallel(partial(retention.sweep, store, dry_run=dry_run), jobs):
        yield from found
    yield from _ticks(backend, dry_run=dry_run)
    yield from _messages(store, dry_run=dry_run)
    try:
        yield from expire_uploads(store, keep_uploads_days, dry_run=dry_run)
    except InvalidSettings as error:
        log.info("The controller deletes unused uploads: %s", error)
    try:
        uploads = store.abort_uploads(time.time() - _UPLOAD_SECONDS, dry_run=dry_run)
    except (InvalidSettings, StoreRefused) as error:
        log.warning("Unfinished uploads are left as they are: %s", error)
        return
    if uploads:
        yield Found("unfinished uploads", "", len(uploads), 0)


def _messages(store: ObjectStore, *, dry_run: bool) -> Iterator[Found]:
    """Delete messages to webhooks that are kept no longer; the controller does so every hour too."""
    for webhook, gone, size in Outbox(store).old(time.time()):
        if not dry_run:
            try:
                store.delete_all(gone)
            except InvalidSettings as error:
                log.info("The controller deletes old messages: %s", error)
                return
        yield Found("old messages", webhook, len(gone), size)


def _ticks(backend: Backend, *, dry_run: bool) -> Iterator[Found]:
    """Delete the ticks of schedules that were removed, and all but the newest of the others."""
    store = backend.store
    known = set(Schedules(store).names())
    for entry in list(store.list(SCHEDULES, folders=True)):
        if not entry.key.endswith("/"):
            continue
        name = entry.key.removeprefix(SCHEDULES).rstrip("/")
        ticks = list(store.list(schedule_ticks(name)))
        old = ticks[:-KEPT] if name in known else ticks
        if old:
            if not dry_run:
                store.delete_all(tick.key for tick in old)
            yield Found("old ticks", name, len(old), sum(tick.size for tick in old))
