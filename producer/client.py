"""The Python face of Imagemill: makes jobs, follows them and reads what they made.

It holds no state of its own. Whatever can be wrong with a job is found before anything is queued.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, TextIO

from pydantic import ValidationError

from contract import lifecycle
from contract.broker import Queues, make_app
from contract.errors import (
    InvalidInput,
    InvalidSettings,
    InvalidSource,
    JobConflict,
    ObjectNotFound,
    RedisUnavailable,
    UnknownJob,
)
from contract.items import parse_s3
from contract.jobs import Classify, Precision, Retry, Source, Status
from contract.keys import JOBS, JobKeys
from contract.ledger import Ledger, Worker
from contract.lifecycle import House
from contract.models import Model, Registry
from contract.objects import ObjectStore
from contract.rows import schema
from contract.settings import Settings, current
from producer import exports, imagefolder, results, sources
from producer.commits import read_markers, status_from_bucket, unfinished
from producer.images import Images
from producer.packing import Progress, pack
from producer.results import Row

log = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]
Format = Literal["jsonl", "csv", "parquet", "imagefolder", "labelstudio"]

_POLL_SECONDS = 0.5
_THREADS = 8


@dataclass(frozen=True)
class Exported:
    """How many images an export holds, and how many rows a format that has no place for failures left out."""

    written: int
    left_out: int = 0


class Client:
    """A client of one Redis and one store; `settings` default to those of the environment.

    Every method raises RedisUnavailable or StoreUnavailable where a server does not answer,
    InvalidSettings where one refuses the credentials, and UnknownJob for an id that is no job.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or current()
        self._app = make_app(self.settings)
        # Given up on after seconds: somebody waits for the answer.
        self.house = self._house(store_patience=5.0, ledger_patience=3.0)
        # Waited for through a restart: half of a long upload is done.
        patience = self.settings.store_patience_seconds
        self._patient = self._house(store_patience=patience, ledger_patience=10.0)

    def _house(self, *, store_patience: float, ledger_patience: float) -> House:
        """The servers, connected to when they are needed."""
        return House(
            store=ObjectStore(self.settings, patience=store_patience),
            ledger=Ledger(self.settings, patience=ledger_patience),
            queues=Queues(self._app),
        )

    def close(self) -> None:
        """Close the idle connections; a call afterwards opens them again."""
        for house in (self.house, self._patient):
            house.ledger.close()
            house.store.close()
        self._app.close()

    # Models and workers

    def models(self) -> list[Model]:
        """Every model of the registry, by name, newest version first."""
        return Registry(self._checked_store()).models()

    def model(self, ref: str) -> Model:
        """The model `name` or `name@version`; raises UnknownModel with the nearest names."""
        return Registry(self._checked_store()).get(ref)

    def workers(self) -> list[Worker]:
        """Workers and controllers that are alive now."""
        return self.house.ledger.workers()

    # Making jobs

    def classify(
        self,
        source: str | Path,
        *,
        model: str,
        top_k: int = 5,
        embed: bool = False,
        precision: Precision = "auto",
        shard_size: int | None = None,
        max_errors: str = "100%",
        job: str | None = None,
        to: str | None = None,
        progress: OnProgress | None = None,
    ) -> Status:
        """Label every image of `source`; returns when everything is queued, not when it is done.

        `source` is a local folder, an `s3://` prefix, a manifest or tars; local images are packed and
        uploaded here, `progress` is told. `job` names the job: the same call again is the same job,
        and goes on with a packing that was interrupted. `to` is an `s3://` prefix for the results.

        Raises InvalidSource, UnknownModel, InvalidInput (an option) or JobConflict (the id belongs to
        another job) before anything is queued.
        """
        keys = JobKeys(job or new_job_id())
        store = self._checked_store()
        self.house.ledger.exists(keys.id)
        output = self._output(keys, to)
        found = sources.resolve(str(source), store)
        record = self.model(model)
        spec = make_spec(
            id=keys.id,
            source=found.source(keys, store.bucket),
            model=record.ref,
            weights_sha256=record.weights.sha256,
            top_k=min(top_k, len(record.labels)),
            embed=embed,
            precision=precision,
            shard_size=shard_size or self.settings.shard_size,
            max_errors=max_errors,
            output=output,
        )
        spec, known = self._known(spec, another_spelling=isinstance(found, sources.Packed))
        if isinstance(found, sources.Upload) and not known:
            self._upload(found, keys, progress)
        lifecycle.submit(self.house, spec)
        if isinstance(found, sources.Packed) and lifecycle.read_end(store, spec.id) is None:
            self._pack(spec, found, progress)
        return self.status(spec.id)

    def cancel(self, job: str) -> Status:
        """Stop a job; its committed shards stay. Raises JobConflict where it has ended otherwise."""
        now = self.status(job)
        if now.state == "canceled":
            return now
        if now.ended:
            raise JobConflict(f"The job {job} has {now.state} already; there is nothing to cancel.")
        return lifecycle.close(self.house, job, "canceled")

    def resume(self, job: str, progress: OnProgress | None = None) -> Status:
        """Go on with a job that was canceled, failed or got stuck, where the bucket says it stands.

        A local folder that was packed in part is packed to its end, on the machine that has it.
        Raises JobConflict where the job succeeded, InvalidSource where the folder is not here.
        """
        store = self.house.store
        spec = lifecycle.read_spec(store, job)
        end = lifecycle.read_end(store, job)
        if end is not None and end.state == "succeeded":
            raise JobConflict(
                f"The job {job} has succeeded; there is nothing to resume. `imagemill retry {job}` runs "
                "failed images again."
            )
        rest = self._unpacked(spec)
        lifecycle.reopen(self.house, job)
        if rest is not None:
            self._pack(spec, rest, progress)
        return self.status(job)

    def retry(self, job: str) -> Status:
        """Run the failed images of an ended job again, and nothing else.

        Raises JobConflict where the job has not ended, or nothing failed.
        """
        store = self.house.store
        lifecycle.read_spec(store, job)
        end = lifecycle.read_end(store, job)
        if end is None:
            raise JobConflict(f"The job {job} has not ended; follow it to its end, or cancel it, then retry.")
        plan = lifecycle.read_plan(store, job)
        if plan is None:
            raise JobConflict(f"The job {job} ended before it was planned; use `imagemill resume {job}`.")
        shards = unfinished(read_markers(store, job), plan.shards)
        if not shards:
            raise JobConflict(f"Nothing failed in {job}; there is nothing to retry.")
        number = 1 + max((r.number for r in lifecycle.read_retries(store, job)), default=0)
        retry = Retry(number=number, shards=tuple(shards))
        if not store.put_if_absent(JobKeys(job).retry(number), retry.to_json()):
            raise JobConflict(f"Somebody else retries {job} just now; follow it.")
        return lifecycle.reopen(self.house, job)

    def rebuild(self, jobs: Sequence[str] | None = None) -> Iterator[Status]:
        """Write the ledger of `jobs`, or of all, anew from the bucket alone, one after the other."""
        self._checked_store()
        for job in self._in_bucket() if jobs is None else jobs:
            lifecycle.read_spec(self.house.store, job)
            self.house.ledger.forget(job)
            yield lifecycle.rebuild(self.house, job)

    # Following jobs

    def status(self, job: str) -> Status:
        """How far a job is: from the ledger, or from the bucket where Redis does not answer."""
        try:
            return lifecycle.status(self.house, job)
        except RedisUnavailable:
            return status_from_bucket(self.house.store, job)

    def jobs(self) -> list[Status]:
        """Every job that the ledger or the bucket knows, newest first."""
        ids, status_of = set(self._in_bucket()), self.status
        try:
            ids.update(id for id, _ in self.house.ledger.jobs())
        except RedisUnavailable as error:
            log.info("The list is from the bucket alone: %s", error)
            # Rather than wait for Redis again at each job.
            status_of = partial(status_from_bucket, self.house.store)

        def look(id: str) -> Status | None:
            try:
                return status_of(id)
            except UnknownJob:  # uploads of a job that was never submitted, or books of one that is deleted
                return None

        with ThreadPoolExecutor(_THREADS) as pool:
            found = [status for status in pool.map(look, ids) if status is not None]
        return sorted(found, key=lambda status: (status.created_at, status.id), reverse=True)

    def follow(self, job: str, stop: threading.Event | None = None) -> Iterator[Status]:
        """The status of a job, twice a second, until it has ended or `stop` is set.

        Goes on from the bucket while Redis is away, and raises RedisUnavailable when it stays away
        for `store_patience_seconds`.
        """
        stop = stop or threading.Event()
        house = House(self._patient.store, self.house.ledger, self.house.queues)
        heard = time.monotonic()
        while not stop.is_set():
            try:
                status = lifecycle.status(house, job)
                heard = time.monotonic()
            except RedisUnavailable:
                if time.monotonic() - heard > self.settings.store_patience_seconds:
                    raise
                status = status_from_bucket(house.store, job)
            yield status
            if status.ended:
                return
            stop.wait(_POLL_SECONDS)

    # Reading results

    def results(self, job: str) -> Iterator[Row]:
        """The rows that are committed so far, failures too; columns as in `contract.rows`."""
        lifecycle.read_spec(self.house.store, job)
        return results.rows(self.house.store, job)

    def errors(self, job: str) -> Iterator[Row]:
        """The rows of the images that failed."""
        lifecycle.read_spec(self.house.store, job)
        return results.rows(self.house.store, job, failed=True)

    def export(self, job: str, format: Format, output: Path | TextIO, *, presign_hours: float = 0) -> Exported:
        """Write the results of a job to a file, or a folder for `imagefolder`, or text to an open stream.

        A file appears when it is whole. With `presign_hours` Label Studio gets web addresses that are
        good for so long, at most 168 h, instead of `s3://` ones. Raises InvalidInput where the format
        cannot be written to `output`.
        """
        spec = lifecycle.read_spec(self.house.store, job)
        store = self.house.store
        if format == "imagefolder" and isinstance(output, Path):
            images = Images(self._patient.store, self.settings.max_image_bytes)
            return Exported(*imagefolder.write(results.with_items(store, job), output, images.read))
        if isinstance(output, Path):
            output.parent.mkdir(parents=True, exist_ok=True)
            partial = output.with_name(f".{output.name}.part")
            try:
                if format == "parquet":
                    tables = (table for _, table in results.tables(store, job))
                    exported = Exported(exports.write_parquet(tables, schema(embedding=spec.embed), partial))
                else:
                    with partial.open("w", encoding="utf-8", newline="") as file:
                        exported = self._export_text(spec, format, file, presign_hours)
                partial.replace(output)
            finally:
                partial.unlink(missing_ok=True)
            return exported
        if format in ("parquet", "imagefolder"):
            raise InvalidInput(f"{format} cannot be written to a terminal or a pipe; name a place with -o.")
        return self._export_text(spec, format, output, presign_hours)

    def _export_text(self, spec: Classify, format: Format, out: TextIO, presign_hours: float) -> Exported:
        store = self.house.store
        rows = results.rows(store, spec.id)
        if format == "jsonl":
            return Exported(exports.write_jsonl(rows, out))
        if format == "csv":
            return Exported(exports.write_csv(rows, out, schema(embedding=spec.embed).names))

        def address(uri: str) -> str:
            if presign_hours and uri.startswith("s3://") and "#" not in uri:
                bucket, key = parse_s3(uri)
                return store.presign(key, bucket=bucket, hours=presign_hours)
            return uri

        return Exported(*exports.write_labelstudio(rows, out, address))

    # Steps

    def _checked_store(self) -> ObjectStore:
        store = self.house.store
        if not store.bucket_exists(store.bucket):
            raise InvalidSettings(
                f"There is no bucket {store.bucket!r} at {store.endpoint}; `imagemill up` creates it, or set "
                "IMAGEMILL_BUCKET to one that exists."
            )
        return store

    def _output(self, keys: JobKeys, to: str | None) -> str:
        store = self.house.store
        if to is None:
            return f"s3://{store.bucket}/{keys.root}out/"
        bucket, prefix = parse_s3(to)
        if not store.bucket_exists(bucket):
            raise InvalidSource(f"There is no bucket {bucket!r} at {store.endpoint} for the results; create it.")
        return f"s3://{bucket}/{prefix.rstrip('/')}/{keys.id}/" if prefix.strip("/") else f"s3://{bucket}/{keys.id}/"

    def _known(self, spec: Classify, *, another_spelling: bool) -> tuple[Classify, bool]:
        """The spec as it was first submitted, and whether it was.

        `another_spelling` of the same folder (`photos`, `./photos/`) is no other job; of an upload the
        name is all that tells it from another. Two first calls at the same instant both answer False,
        and `submit` settles them.
        """
        try:
            there = lifecycle.read_spec(self.house.store, spec.id)
        except UnknownJob:
            return spec, False
        if another_spelling and spec.source.uri == there.source.uri:
            source = spec.source.model_copy(update={"label": there.source.label})
            spec = spec.model_copy(update={"source": source})
        if spec != there:
            raise JobConflict(
                f"The job {spec.id!r} exists with {_differences(spec, there)}; choose another --job, or leave it out."
            )
        return there, True

    def _upload(self, upload: sources.Upload, keys: JobKeys, progress: OnProgress | None) -> None:
        store = self._patient.store
        for done, file in enumerate(upload.files, 1):
            key = upload.key(file, keys)
            try:
                there = store.size(key) == file.stat().st_size
            except ObjectNotFound:
                there = False
            if not there or upload.kind == "manifest":
                store.put_file(key, file)
            if progress:
                progress(Progress(done, done, len(upload.files), "files"))

    def _pack(self, spec: Classify, source: sources.Packed, progress: OnProgress | None) -> None:
        pack(
            self._patient,
            spec,
            source,
            max_bytes=self.settings.max_image_bytes,
            progress=progress or (lambda _: None),
        )

    def _unpacked(self, spec: Classify) -> sources.Packed | None:
        """What is left to pack of a job, None where nothing is."""
        if spec.source.kind != "packed" or lifecycle.read_plan(self.house.store, spec.id) is not None:
            return None
        path = sources.from_file_uri(spec.source.uri)
        if not path.exists():
            raise InvalidSource(
                f"{path} is not packed to its end and not on this machine; resume {spec.id} where it is."
            )
        found = sources.resolve(str(path), self.house.store)
        if not isinstance(found, sources.Packed):
            raise JobConflict(f"{path} has changed since {spec.id} was begun; start a new job.")
        return found

    def _in_bucket(self) -> list[str]:
        entries = self._checked_store().list(JOBS, folders=True)
        return [entry.key.removeprefix(JOBS).rstrip("/") for entry in entries if entry.key.endswith("/")]


def new_job_id() -> str:
    """An id that sorts by time (UTC) and that nobody else has."""
    return f"classify-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def make_spec(*, id: str, source: Source, **fields: object) -> Classify:
    """The spec of a job; raises InvalidInput naming the option that cannot be."""
    try:
        return Classify.model_validate({"id": id, "source": source, **fields})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "spec"
        if name == "id":
            raise InvalidInput(
                f"{id!r} is no job id; use up to 63 of a-z, 0-9 and -, a letter or digit first."
            ) from None
        raise InvalidInput(f"--{name.replace('_', '-')}: {first['msg'].removeprefix('Value error, ')}.") from None


def _differences(spec: Classify, there: Classify) -> str:
    ours, theirs = spec.model_dump(), there.model_dump()
    for name in theirs:
        if name != "source" and ours[name] != theirs[name]:
            return f"{name} {theirs[name]}, not {ours[name]}"
    return f"the source {there.source.label}, not {spec.source.label}"
