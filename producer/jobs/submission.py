"""Submits jobs, and takes up jobs that ended: pins the spec, brings local images to the store, and queues the job.

`patient` is the backend for uploads, which waits through a restart of a server; `backend` gives up within seconds,
since somebody waits for the answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import ValidationError

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.datasets.records import Extend
from contract.errors import DatasetBusy, InvalidInput, InvalidSource, JobConflict, ObjectNotFound, UnknownJob
from contract.jobs import lifecycle, templates
from contract.jobs.commits import iter_commits, read_retries
from contract.jobs.ends import read_end, read_standing
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend
from contract.jobs.numerics import check_workers
from contract.jobs.sources import source_kind
from contract.jobs.specs import AnySpec, Classify, Source, Synthesize
from contract.jobs.status import Retry, Status
from contract.keys.jobs import JobKeys
from contract.models.registry import Registry
from producer.jobs.requests import Request, S
from producer.jobs.status_from_bucket import unfinished
from producer.sources import images
from producer.sources.pack import Progress, pack, upload

OnProgress = Callable[[Progress], None]


def new_job_id(command: str) -> str:
    """Return a unique id that sorts by time (UTC) among the jobs of its command, also of thousands in one second."""
    return f"{command}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def make_spec(request: Request[S], keys: JobKeys, store: ObjectStore, *, scheduled: bool = False) -> S:
    """Return the spec of a request, with models and source pinned; `scheduled`, as the first tick would make it.

    Raises InvalidSource if the bucket for the results does not exist, InvalidInput for an id that cannot be, and what
    `templates.pin` raises.
    """
    if request.to is not None and not store.bucket_exists(parse_s3(request.to)[0]):
        raise InvalidSource(
            f"There is no bucket {parse_s3(request.to)[0]!r} at {store.endpoint} for the results; create it."
        )
    fields = templates.pin(request.fields, request.name, Registry(store))
    if kind_of(request.name).seeded:
        fields["seed"] = _seed(fields["seed"], keys.id, scheduled=scheduled)
    if fields.get("extend"):
        fields["extend"] = _extension(fields, keys.id, store, scheduled=scheduled)
    if fields.get("balance"):
        fields |= _balanced(fields, keys.id, store, scheduled=scheduled)
    found = request.found
    if isinstance(found, images.Packed) and not kind_of(request.name).runs_while_planned:
        uri = f"s3://{store.bucket}/{keys.input_prefix}"
        fields[request.place] = Source(kind="uploaded", uri=uri, label=found.label)
    elif found is not None:
        source = found.source(keys, store.bucket)
        # The watch that a schedule names may have no segment yet, or be added later; a job may have no reviews yet.
        unpinned = isinstance(source, Source) and any(one.kind in ("segment", "review") for one in source.each)
        if isinstance(source, Source) and not (scheduled and unpinned):
            source = templates.pin_source(source, store)
        fields[request.place] = source
    try:
        return request.kind(id=keys.id, output=templates.output(keys, store.bucket, request.to), **fields)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("id",):
            raise InvalidInput(
                f"{keys.id!r} cannot be a job id; use up to 63 of a-z, 0-9 and -, with a letter or digit first."
            ) from None
        raise InvalidInput(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _seed(asked: int | str | None, id: str, *, scheduled: bool) -> int:
    """Return the seed of a job; raises InvalidInput for `tick` outside of a schedule."""
    if asked == templates.TICK and not scheduled:
        raise InvalidInput(
            "--seed tick is another seed at each tick of a schedule, and this job has none; give a number, or leave "
            "--seed out."
        )
    return asked if isinstance(asked, int) else templates.seed_of(id) if scheduled else 0


def _extension(fields: Mapping[str, Any], id: str, store: ObjectStore, *, scheduled: bool) -> Extend:
    """Return the version that a job makes of its dataset: what it was first submitted with, if it was."""
    try:
        there = lifecycle.read_spec(store, id)
    except UnknownJob:
        there = None
    if isinstance(there, Synthesize) and there.extend is not None and there.extend.dataset == fields["extend"]:
        return there.extend
    now = datetime.now(UTC)
    try:
        return templates.extension(fields, id, store, now)
    except DatasetBusy:
        if not scheduled:
            raise
        return Extend(dataset=fields["extend"], number=1, at=now.isoformat())  # the first tick waits its turn


def _balanced(fields: Mapping[str, Any], id: str, store: ObjectStore, *, scheduled: bool) -> dict[str, Any]:
    """Return how many images of each class a job makes: what it was first submitted with, if it was."""
    if scheduled:  # the watch that a schedule names may be added later, and each tick counts anew
        return {"balance": None, "per_class": fields["per_class"] or 1}
    try:
        there = lifecycle.read_spec(store, id)
    except UnknownJob:
        there = None
    if isinstance(there, Synthesize) and there.balance is not None:
        before, labels = there.balance, Registry(store).get(fields["model"]).labels
        among = tuple(labels[label] for label in fields["classes"])
        if (before.watch, before.per_class, before.among) == (fields["balance"], fields["per_class"], among):
            return there.model_dump(include={"classes", "counts", "per_class", "balance"})
    return templates.balanced(fields, store)


def begin(
    backend: Backend,
    patient: Backend,
    spec: AnySpec,
    found: images.Resolved | None,
    *,
    owner: str,
    max_bytes: int,
    progress: OnProgress | None,
) -> None:
    """Bring local images to the store, unless the job exists already, and queue the job.

    Raises JobConflict if the id belongs to another job, and InvalidInput if no live worker has the precision that it
    asks for.
    """
    keys = JobKeys(spec.id)
    spec, known = _known(backend.store, spec, another_spelling=isinstance(found, images.Packed))
    if not known:
        check_workers(spec, backend.ledger.workers())
    while_planned = kind_of(spec).runs_while_planned
    if isinstance(found, images.Upload | images.Pair) and not known:
        _upload(patient.store, found, keys, progress)
    elif isinstance(found, images.Packed) and not known and not while_planned:
        upload(patient.store, keys, found, max_bytes=max_bytes, progress=progress or _silent)
    lifecycle.submit(backend, spec, owner)
    if isinstance(found, images.Packed) and while_planned and read_end(backend.store, spec.id) is None:
        _pack(patient, spec, found, max_bytes, progress)


def resume(backend: Backend, patient: Backend, job: str, *, max_bytes: int, progress: OnProgress | None) -> None:
    """Continue a job that was canceled, failed or got stuck, and pack what is left of its local folder.

    Raises JobConflict if the job succeeded or the folder has changed, and InvalidSource if the folder is elsewhere.
    """
    spec = lifecycle.read_spec(backend.store, job)
    found = read_standing(backend.store, job)
    if found.end is not None and found.end.state == "succeeded":
        raise JobConflict(
            f"The job {job} has succeeded; there is nothing to resume. "
            f"`imagemill retry {job}` runs failed images again."
        )
    rest = _unpacked(backend.store, spec)
    lifecycle.reopen(backend, job, found)
    if rest is not None:
        _pack(patient, spec, rest, max_bytes, progress)


def retry(backend: Backend, job: str) -> Status:
    """Run the failed images of an ended job again; raises JobConflict if it has not ended or nothing failed."""
    store = backend.store
    lifecycle.read_classify(store, job)
    found = read_standing(store, job)
    if found.end is None:
        raise JobConflict(f"The job {job} has not ended; follow it to its end, or cancel it, then retry.")
    plan = lifecycle.read_plan(store, job)
    if plan is None:
        raise JobConflict(f"The job {job} ended before it was planned; use `imagemill resume {job}`.")
    shards = unfinished(iter_commits(store, job), plan.shards)
    if not shards:
        raise JobConflict(f"No image of {job} failed; there is nothing to retry.")
    number = 1 + read_retries(store, job).number
    return lifecycle.reopen(backend, job, found, Retry(number=number, shards=tuple(shards)))


def _known(store: ObjectStore, spec: AnySpec, *, another_spelling: bool) -> tuple[AnySpec, bool]:
    """Return the spec as it was first submitted, and whether it was.

    With `another_spelling`, a different path to the same folder (`photos`, `./photos/`) is the same job; an upload is
    known by its name alone. Two first calls at the same instant both get False, and `lifecycle.submit` settles them.
    """
    try:
        there = lifecycle.read_spec(store, spec.id)
    except UnknownJob:
        return spec, False
    if another_spelling and "source" in type(spec).model_fields and spec.source.uri == there.source.uri:
        source = spec.source.model_copy(update={"label": there.source.label})
        spec = spec.model_copy(update={"source": source})
    if type(spec) is not type(there) or spec != there:
        raise JobConflict(
            f"The job {spec.id!r} exists with {_difference(spec, there)}; choose another --job, or leave it out."
        )
    return there, True


def _difference(spec: AnySpec, there: AnySpec) -> str:
    ours, theirs = spec.model_dump(), there.model_dump()
    if spec.kind != there.kind:
        return f"another kind, {there.kind}"
    for name in theirs:
        if name not in ("source", "ends") and ours[name] != theirs[name]:
            return f"{name} {theirs[name]}, not {ours[name]}"
    if there.source.label == spec.source.label:
        return f"{there.source.label} as it was then"
    return f"the source {there.source.label}, not {spec.source.label}"


def _upload(store: ObjectStore, found: images.Upload | images.Pair, keys: JobKeys, progress: OnProgress | None) -> None:
    for done, file in enumerate(found.files, 1):
        key = found.key(file, keys)
        try:
            there = store.size(key) == file.stat().st_size
        except ObjectNotFound:
            there = False
        if not there or found.renamed:
            store.put_file(key, file)
        if progress:
            progress(Progress(done, done, len(found.files), "files"))


def _pack(patient: Backend, spec: AnySpec, found: images.Packed, max_bytes: int, progress: OnProgress | None) -> None:
    pack(patient, cast("Classify", spec), found, max_bytes=max_bytes, progress=progress or _silent)


def _unpacked(store: ObjectStore, spec: AnySpec) -> images.Packed | None:
    """Return the local images of a job that are still to be packed, None if all are."""
    if not source_kind(spec.source.kind).packed_by_producer or lifecycle.read_plan(store, spec.id) is not None:
        return None
    path = images.from_file_uri(spec.source.uri)
    if not path.exists():
        raise InvalidSource(
            f"{path} is not on this machine, and {spec.id} was interrupted while packing it; "
            "resume it where the folder is."
        )
    found = images.resolve(str(path), store, cast("Classify", spec).frames)
    if not isinstance(found, images.Packed):
        raise JobConflict(f"{path} has changed since {spec.id} was submitted; start a new job.")
    return found


def _silent(_: Progress) -> None:
    pass
