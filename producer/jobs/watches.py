"""Watches as a user sees them: adds, pauses and removes them, and says how each stands.

It plans nothing; `worker.control.watching` does, on the controllers.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import InvalidWatch, ObjectNotFound, UnknownWatch
from contract.fleet.snapshot import JobState, read_fleet
from contract.jobs import templates
from contract.jobs.destinations import check_output
from contract.jobs.lifecycle import Backend
from contract.jobs.options import WatchOptions
from contract.jobs.schedules import Schedules, Tick
from contract.jobs.templates import Template
from contract.keys.bucket import RESERVED, probe_object
from contract.keys.jobs import JobKeys
from contract.keys.watches import watch_thens
from contract.records import Record
from contract.times import iso
from contract.watches.record import Overwrites, Start, Watch, Watches, folder_of, parse_every
from contract.watches.state import WatchState, read_states
from contract.watches.tables import delta_version, table_of_watch

_LOOKED_AT = 100
"""Newest ends of segments among which the job is looked for that one has started."""
_SILENT_SECONDS = 30.0
"""A controller says how a watch stands every few seconds."""


class Watched(Record):
    """A watch and how it stands, as `imagemill watch list --json` prints it. Times are UTC, ISO 8601."""

    name: str = Field(description="Name of the watch, up to 32 characters.")
    source: str = Field(description="The prefix that it follows.")
    model: str = Field(description="The model as typed; each segment pins the version that it names then.")
    state: Literal["watching", "waiting", "paused", "unattended"] = Field(
        description="`waiting`: `reason` says for what; `unattended`: no controller has reported on it lately."
    )
    reason: str | None = Field(default=None, description="Why not everything is planned, in one sentence.")
    lag_seconds: float | None = Field(
        default=None, description="Age of the oldest object that is not planned; null while nobody knows."
    )
    unplanned: int = Field(0, description="Objects that were found and are not planned: discovered − planned.")
    uncommitted: int = Field(0, description="Objects that are planned and have no row yet: planned − committed.")
    planned: int = Field(0, description="Objects planned since the watch was added.")
    images_per_second: float = Field(0.0, description="Rate at which rows are committed.")
    jobs: tuple[str, ...] = Field((), description="The segments that have not ended: jobs like any other.")
    every_seconds: float = Field(description="Seconds between two looks at the prefix.")
    start: Start = Field(description="Whether what was there before is labelled too.")
    overwrites: Overwrites = Field(description="Whether an overwritten object is labelled again.")
    archive: str = Field("", description="The prefix that labelled objects are moved to; empty: they stay.")
    then: str = Field("", description="The schedule whose command the end of each segment starts; empty: none.")
    delta: bool = Field(False, description="Whether its table is a Delta table too.")
    table: str = Field("", description="The s3:// prefix of the table of its rows.")
    table_waiting: int = Field(0, description="Segments that have ended and are not in the table yet.")
    delta_version: int | None = Field(
        default=None, description="Newest version of the Delta table; null before the first, and in a list of watches."
    )
    archived: int = Field(0, description="Images that are in the archive.")
    archive_waiting: int = Field(0, description="Segments that have ended and whose images are not in the archive yet.")
    then_job: str | None = Field(
        default=None, description="The job that the end of a segment started last; null if none did, and in a list."
    )
    swept_at: str | None = Field(default=None, description="When everything was planned last.")
    controller: str | None = Field(default=None, description="The controller that keeps it.")
    created_at: str = Field(description="When the watch was added.")
    owner: str = Field("", description="Who may change it; empty: anybody.")


def new_watch(
    options: WatchOptions, template: Template, store: ObjectStore, *, owner: str = "", now: float | None = None
) -> Watch:
    """Return a watch that begins `now`; raises InvalidWatch for a name, prefix, interval or output that cannot be, and
    UnknownSchedule for what it starts."""
    watch = Watch(
        name=Watches.check_name(options.name),
        source=str(options.source),
        every=parse_every(options.every),
        start=options.start,
        overwrites=options.overwrites,
        archive=folder_of(options.archive or ""),
        then=options.then or "",
        delta=options.delta,
        created_at=iso(now or time.time()) or "",
        template=template,
        owner=owner,
    )
    _check_source(watch, store)
    _check_output(watch, store, options.to)
    if watch.archive:
        _check_archive(watch, store)
    _check_others(watch, store)
    if watch.then:
        Schedules(store).get(watch.then)
    return watch


def _check_source(watch: Watch, store: ObjectStore) -> None:
    if not watch.source.startswith("s3://"):
        raise InvalidWatch(
            f"{watch.source} is no s3:// prefix; a watch follows s3://bucket/prefix. A folder of this machine is "
            "uploaded with --upload."
        )
    if not store.bucket_exists(watch.bucket):
        raise InvalidWatch(
            f"There is no bucket {watch.bucket!r} at {store.endpoint}; create it, or correct {watch.source}."
        )
    reserved = next((one for one in RESERVED if one.startswith(watch.prefix) or watch.prefix.startswith(one)), None)
    if watch.bucket == store.bucket and reserved is not None:
        raise InvalidWatch(
            f"{watch.source} holds what Imagemill itself writes, such as s3://{store.bucket}/{reserved}; watch a "
            f"prefix of its own, such as s3://{store.bucket}/photos/."
        )


def _check_output(watch: Watch, store: ObjectStore, to: str | None) -> None:
    """Refuse rows below the watched prefix, where a watch would find what it wrote."""
    if to is None:
        return
    check_output(to, store.bucket)
    bucket, prefix = parse_s3(templates.output(JobKeys(watch.job(0)), store.bucket, to))
    if not store.bucket_exists(bucket):
        raise InvalidWatch(f"There is no bucket {bucket!r} at {store.endpoint} for the rows; create it.")
    rows = prefix.removesuffix("000000/")
    if bucket == watch.bucket and (rows.startswith(watch.prefix) or watch.prefix.startswith(rows)):
        raise InvalidWatch(
            f"{to} lies below {watch.source}, so the watch would find its own rows; choose another --to."
        )


def _check_archive(watch: Watch, store: ObjectStore) -> None:
    """Refuse an archive that the watch would find again, or that could cost an image."""
    if watch.overwrites != "again":
        raise InvalidWatch(
            "--archive frees the names of what was labelled, so that another image may take one; add --overwrites "
            "again, so that it is labelled too."
        )
    check_output(watch.archive, store.bucket)
    bucket, prefix = parse_s3(watch.archive)
    if not store.bucket_exists(bucket):
        raise InvalidWatch(f"There is no bucket {bucket!r} at {store.endpoint} for the archive; create it.")
    if bucket == watch.bucket and (prefix.startswith(watch.prefix) or watch.prefix.startswith(prefix)):
        raise InvalidWatch(
            f"{watch.archive} and {watch.source} lie one below the other, so the watch would find what it has moved; "
            "choose another --archive."
        )
    if not store.heeds_etags(probe_object(uuid.uuid4().hex)):
        raise InvalidWatch(
            f"The store at {store.endpoint} copies or deletes an object that was overwritten meanwhile, although it is "
            "told not to (If-Match), so --archive could lose an image; leave it out."
        )


def _check_others(watch: Watch, store: ObjectStore) -> None:
    """Refuse a second watch of objects that one of the two moves away."""
    watches = Watches(store)
    for name in watches.names():
        try:
            other = watches.get(name)
        except (InvalidWatch, UnknownWatch):
            continue
        meet = other.prefix.startswith(watch.prefix) or watch.prefix.startswith(other.prefix)
        if other.bucket == watch.bucket and meet and (watch.archive or other.archive):
            raise InvalidWatch(
                f"The watch {name} follows {other.source}, and what one of the two moves to an archive would be gone "
                f"for the other; watch {other.archive or watch.archive} in place of it, or choose another prefix."
            )


def pause(backend: Backend, name: str, owner: str, *, paused: bool = True) -> Watch:
    """Plan nothing more until the watch goes on; raises UnknownWatch and NotOwner."""
    watches = Watches(backend.store)
    return watches.change(watches.owned(name, owner), paused=paused)


def overview(backend: Backend, names: Sequence[str], now: float | None = None) -> list[Watched]:
    """Return these watches and how they stand; raises UnknownWatch."""
    watches = Watches(backend.store)
    found = [watches.get(name) for name in names]
    states = read_states(backend.ledger)
    jobs = {job.id: job for job in read_fleet(backend.ledger).jobs}
    at = time.time() if now is None else now
    tables = [table_of_watch(backend.store, watch) for watch in found]
    return [
        _overview(watch, table, states.get(watch.name), jobs, at) for watch, table in zip(found, tables, strict=True)
    ]


def shown(backend: Backend, name: str) -> Watched:
    """Return a watch and how it stands, with what takes a listing of its own; raises UnknownWatch."""
    (found,) = overview(backend, [name])
    watch = Watches(backend.store).get(name)
    version = delta_version(backend.store, found.table) if watch.delta else None
    return found.model_copy(update={"delta_version": version, "then_job": _started(backend.store, watch)})


def _started(store: ObjectStore, watch: Watch) -> str | None:
    """Return the job that the end of a segment started last."""
    if not watch.then:
        return None
    decided = [entry.key for entry in store.list(watch_thens(watch.root)) if entry.key.endswith(".json")]
    for key in reversed(decided[-_LOOKED_AT:]):
        with suppress(ObjectNotFound):
            tick = Tick.model_validate_json(store.get(key))
            if tick.state == "submitted":
                return tick.job
    return None


def _overview(watch: Watch, table: str, state: WatchState | None, jobs: Mapping[str, JobState], now: float) -> Watched:
    if state is not None and (state.stamp != watch.stamp or now - state.at > _SILENT_SECONDS):
        state = None
    under_way = [jobs[job] for job in (state.jobs if state else ()) if job in jobs]
    return Watched(
        name=watch.name,
        source=watch.source,
        model=watch.template.model,
        state=_state(watch, state),
        reason=state.reason or None if state else _unattended(watch, now),
        lag_seconds=round(state.lag(now), 1) if state and (state.swept_at or state.oldest) else None,
        unplanned=state.pending if state else 0,
        uncommitted=sum(job.backlog_images for job in under_way),
        planned=state.planned if state else 0,
        images_per_second=round(sum(job.images_per_second for job in under_way), 1),
        jobs=state.jobs if state else (),
        every_seconds=watch.every,
        start=watch.start,
        overwrites=watch.overwrites,
        archive=watch.archive,
        then=watch.then,
        delta=watch.delta,
        table=table,
        table_waiting=state.table_waiting if state else 0,
        archived=state.archived if state else 0,
        archive_waiting=state.archive_waiting if state else 0,
        swept_at=iso(state.swept_at) if state else None,
        controller=state.controller if state else None,
        created_at=watch.created_at,
        owner=watch.owner,
    )


def _unattended(watch: Watch, now: float) -> str:
    if now - datetime.fromisoformat(watch.created_at).timestamp() < _SILENT_SECONDS:
        return "It was added just now; a controller takes it up within seconds."
    return "No controller has reported on it lately; see `imagemill doctor`."


def _state(watch: Watch, state: WatchState | None) -> Literal["watching", "waiting", "paused", "unattended"]:
    if watch.paused:
        return "paused"
    if state is None:
        return "unattended"
    return "waiting" if state.reason else "watching"
