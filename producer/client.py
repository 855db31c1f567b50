"""The Python face of Imagemill: makes jobs, follows them and reads what they made.

It holds no state of its own. Whatever can be wrong with a job is found before anything is queued.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from pydantic import ValidationError

from contract.backend.broker import Queues, make_app
from contract.backend.ledger import Ledger, Worker
from contract.backend.objects import ObjectStore
from contract.data.dataset_card import Layout
from contract.data.dataset_stats import DatasetStats
from contract.data.image_index import ImageFormat
from contract.data.items import parse_s3
from contract.data.label_rows import schema
from contract.errors import (
    InvalidInput,
    InvalidSettings,
    InvalidSource,
    JobConflict,
    ObjectNotFound,
    RedisUnavailable,
    UnknownJob,
)
from contract.jobs import lifecycle, results, templates
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend
from contract.jobs.results import Row, read_commits
from contract.jobs.schedules import Missed, Schedules
from contract.jobs.sources import source_kind
from contract.jobs.specs import Classify, SampledSpec, Source, Spec, Verify
from contract.jobs.status import Retry, Status
from contract.keys import JOBS, JobKeys
from contract.models.registry import Model, Registry, Scalar, Task
from contract.records import Precision
from contract.settings import Settings, current
from producer import models as own_models
from producer.exports import labels, labels_imagefolder
from producer.exports.images import export
from producer.exports.images.export import OnImages
from producer.jobs import reports, requests
from producer.jobs import schedules as own_schedules
from producer.jobs.requests import Request, S, make_request, make_template
from producer.jobs.schedules import Run, Scheduled
from producer.jobs.status_from_bucket import status_from_bucket, unfinished
from producer.sources import images
from producer.sources.pack import Progress, pack, upload
from producer.sources.read import Images

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
        self.backend = self._backend(store_patience=5.0, ledger_patience=3.0)
        # Waited for through a restart: half of a long upload is done.
        patience = self.settings.store_patience_seconds
        self._patient = self._backend(store_patience=patience, ledger_patience=10.0)

    def _backend(self, *, store_patience: float, ledger_patience: float) -> Backend:
        """The servers, connected to when they are needed."""
        return Backend(
            store=ObjectStore(self.settings, patience=store_patience),
            ledger=Ledger(self.settings, patience=ledger_patience),
            queues=Queues(self._app),
        )

    def close(self) -> None:
        """Close the idle connections; a call afterwards opens them again."""
        for backend in (self.backend, self._patient):
            backend.ledger.close()
            backend.store.close()
        self._app.close()

    # Models and workers

    def models(self) -> list[Model]:
        """Every model of the registry, by name, newest version first."""
        return Registry(self._checked_store()).models()

    def model(self, ref: str, *, tasks: Sequence[Task] = ()) -> Model:
        """The model `name`, `name@version` or `name@alias`; raises UnknownModel with the nearest names.

        With `tasks`, raises InvalidInput for a model that does something else.
        """
        return Registry(self._checked_store()).get(ref, tasks=tasks)

    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a model, and the versions that they stand for."""
        return Registry(self._checked_store()).aliases(name)

    def set_alias(self, ref: str, alias: str) -> Model:
        """Let `name@alias` stand for the version that `ref` is now, whatever it stood for; that model.

        Raises UnknownModel for `ref`, and InvalidInput for what cannot be an alias.
        """
        registry = Registry(self._checked_store())
        model = registry.get(ref)
        registry.set_alias(model.name, alias, model.version)
        return model

    def remove_alias(self, ref: str) -> None:
        """Forget the alias of `name@alias`; raises UnknownModel where there is none."""
        name, _, alias = ref.partition("@")
        Registry(self._checked_store()).remove_alias(name, alias)

    def push_model(
        self,
        name: str,
        path: str | Path,
        *,
        labels: Sequence[str],
        size: int,
        mean: float = 127.5,
        std: float = 127.5,
        crop: float = 1.0,
        interpolation: Literal["bicubic", "bilinear"] = "bicubic",
        channels: Literal[1, 3] = 3,
        family: str | None = None,
        config: Mapping[str, Scalar] | None = None,
        license: str = "",
        source: str = "",
        timeout: float = 600.0,
    ) -> Model:
        """Publish a file as the next version of `name`, once a worker has run it: `.pt2`, or `.safetensors`.

        A `.pt2` of `torch.export.save` needs no code on the worker. It maps float32 [n, channels, size, size],
        pixel values less `mean` over `std`, to logits [n, labels] or to a tuple of these and features [n, d].
        `.safetensors` are the weights of a `family` of the zoo, built with `config`.

        Raises InvalidInput for what cannot be, and where the worker refuses it; ServiceUnavailable where none
        has tried it within `timeout` seconds. Nothing is published then.
        """
        self._checked_store()
        self.backend.ledger.workers()
        file = Path(path)
        preprocess = {
            "size": size,
            "crop": crop,
            "interpolation": interpolation,
            "mean": mean,
            "std": std,
            "channels": channels,
        }
        draft = own_models.describe(
            name,
            file,
            labels=labels,
            preprocess=preprocess,
            family=family,
            config=config or {},
            license=license,
            source=source,
        )
        return own_models.push(self._patient, draft, file, timeout=timeout)

    def pull_model(self, ref: str, into: str | Path) -> list[Path]:
        """Write the record and every file of a model into a folder, each verified by its sha256; their paths."""
        registry = Registry(self._checked_store())
        return own_models.pull(registry, registry.get(ref), Path(into))

    def remove_model(self, ref: str) -> Model:
        """Remove the version `name@version`, whose number never comes back; jobs that pin it fail.

        Raises UnknownModel, InvalidInput without a version, and JobConflict while an alias stands for it.
        """
        return Registry(self._checked_store()).remove(ref)

    def workers(self) -> list[Worker]:
        """Workers and controllers that are alive now."""
        return self.backend.ledger.workers()

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
        uploaded here, `progress` is told. A model of sequences takes the images of a folder, an animation, or the
        `frames` of a manifest's row for one. `job` names the job: the same call again is the same job,
        and goes on with a packing that was interrupted. `to` is an `s3://` prefix for the results.

        Raises InvalidSource, UnknownModel, InvalidInput (an option) or JobConflict (the id belongs to
        another job) before anything is queued.
        """
        keys = JobKeys(job or new_job_id("classify"))
        request = requests.classify(
            self._ready_store(keys),
            self.settings,
            source,
            model=model,
            top_k=top_k,
            embed=embed,
            precision=precision,
            shard_size=shard_size,
            max_errors=max_errors,
            to=to,
        )
        found, spec = request.found, self._spec(request, keys, packed=True)
        spec, known = self._known(spec, another_spelling=isinstance(found, images.Packed))
        if isinstance(found, images.Upload) and not known:
            self._upload(found, keys, progress)
        lifecycle.submit(self.backend, spec)
        if isinstance(found, images.Packed) and lifecycle.read_end(self.backend.store, spec.id) is None:
            self._pack(spec, found, progress)
        return self.status(spec.id)

    def train(
        self,
        family: str,
        source: str | Path,
        *,
        name: str,
        epochs: int | None = None,
        settings: Sequence[str] = (),
        labels: Sequence[str] = (),
        start: str | None = None,
        min_score: float = 0.0,
        half: bool = False,
        job: str | None = None,
        progress: OnProgress | None = None,
    ) -> Status:
        """Train a model of a family on `source`, to be published as the next version of `name`; returns when queued.

        `source` is a folder of class folders, tars, a prefix, a manifest with a column `label`, IDX files, or
        `job:ID`, the labels of an earlier job that are `min_score` sure. `settings` are `key=value` of the family's
        recipe (`contract.models.recipes`); `labels` name the classes in their order; `start` is a model of the same
        family whose weights are begun with; with `half` the weights are published in half precision.

        Raises InvalidSource, InvalidInput (an option), UnknownModel, UnknownJob or JobConflict before anything is
        queued.
        """
        keys = JobKeys(job or new_job_id("train"))
        request = requests.train(
            self._ready_store(keys),
            self.settings,
            family,
            source,
            name=name,
            epochs=epochs,
            settings=settings,
            labels=labels,
            start=start,
            min_score=min_score,
            half=half,
        )
        return self._begin(self._spec(request, keys), request.found, progress)

    def evaluate(
        self,
        model: str,
        source: str | Path,
        *,
        precision: Precision = "auto",
        min_score: float = 0.0,
        features: str | None = None,
        count: int = 0,
        cas_epochs: int = 0,
        seed: int = 0,
        job: str | None = None,
        progress: OnProgress | None = None,
    ) -> Status:
        """Judge a model by `source`, labelled images such as a training takes; returns when queued.

        A classifier is judged by the labels; of IDX files the test part is taken where there are several. A generator
        is compared, by `features` of a classifier of the same classes, with the images that it did not learn from:
        the test part, or what its training held out of `source`. `count` images are generated for that, 0: as many as
        there are real ones, under `seed`; with `cas_epochs` two classifiers are trained for so long, on generated and
        on real images, for the classification accuracy score. Raises what `train` raises.
        """
        keys = JobKeys(job or new_job_id("evaluate"))
        request = requests.evaluate(
            self._ready_store(keys),
            self.settings,
            model,
            source,
            precision=precision,
            min_score=min_score,
            features=features,
            count=count,
            cas_epochs=cas_epochs,
            seed=seed,
        )
        return self._begin(self._spec(request, keys), request.found, progress)

    def generate(
        self,
        model: str,
        *,
        count: int | None = None,
        reconstruct: str | Path | None = None,
        interpolate: Sequence[str | Path] | None = None,
        steps: int | None = None,
        classes: Sequence[str] = (),
        seed: int = 0,
        truncation: float | None = None,
        size: int = 0,
        image_format: ImageFormat = "png",
        precision: Precision = "auto",
        shard_size: int = 1024,
        job: str | None = None,
        to: str | None = None,
        progress: OnProgress | None = None,
    ) -> Status:
        """Generate `count` images with a generator, as many of each of `classes`, or of all, as of any other.

        Returns when queued. Image `i` of a class follows from the weights, `seed`, the class, `i`, `truncation`,
        `size` and `image_format` alone, so a larger count holds what a smaller one does. With `truncation` no number
        of a latent lies beyond it; `size` 0 is that of the generator.

        Of a model with an encoder, a VAE, `reconstruct` is a source such as a training takes, all of whose images, or
        the first `count`, are encoded and decoded again, each of its own class; of IDX files the test part where there
        are several. `interpolate` are two images of the one class in `classes`, files or `s3://` addresses; `steps`
        images, 10 unless told, are made on the way between them, the ends included.

        Raises UnknownModel, InvalidInput (an option, a class), InvalidSource or JobConflict before anything is queued.
        """
        keys = JobKeys(job or new_job_id("generate"))
        request = requests.generate(
            self._ready_store(keys),
            self.settings,
            model,
            count=count,
            reconstruct=reconstruct,
            interpolate=interpolate,
            steps=steps,
            classes=classes,
            seed=seed,
            truncation=truncation,
            size=size,
            image_format=image_format,
            precision=precision,
            shard_size=shard_size,
            to=to,
        )
        return self._begin(self._spec(request, keys), request.found, progress)

    def synthesize(
        self,
        model: str,
        *,
        gate: str,
        per_class: int,
        classes: Sequence[str] = (),
        min_score: float = 0.9,
        dedup: float | None = None,
        away_from: str | Path | None = None,
        copy_distance: float = 0.0002,
        max_attempts: int = 20,
        seed: int = 0,
        truncation: float | None = None,
        size: int = 0,
        image_format: ImageFormat = "png",
        precision: Precision = "auto",
        shard_size: int = 1024,
        job: str | None = None,
        to: str | None = None,
        progress: OnProgress | None = None,
    ) -> Status:
        """Generate images until `per_class` of each class pass every test; returns when queued.

        Candidates 0, 1, 2, … of a class are made until so many are taken for their class by `gate` with `min_score`
        or more, are nearer than `dedup` to none that was accepted before, and nearer than `copy_distance` to none of
        `away_from`, a source such as a training takes; both cosine distances of the gate's features. A class that has
        not enough after `max_attempts` candidates for each image that is wanted ends the job as failed, with what
        there is. Raises what `generate` raises, and InvalidSource.
        """
        keys = JobKeys(job or new_job_id("synthesize"))
        request = requests.synthesize(
            self._ready_store(keys),
            self.settings,
            model,
            gate=gate,
            per_class=per_class,
            classes=classes,
            min_score=min_score,
            dedup=dedup,
            away_from=away_from,
            copy_distance=copy_distance,
            max_attempts=max_attempts,
            seed=seed,
            truncation=truncation,
            size=size,
            image_format=image_format,
            precision=precision,
            shard_size=shard_size,
            to=to,
        )
        return self._begin(self._spec(request, keys), request.found, progress)

    def verify(self, made: str, *, sample: int = 64, job: str | None = None) -> Status:
        """Generate `sample` images of an earlier job again and compare them with its files; returns when queued.

        The job fails where one differs by more than a level of 255. Raises UnknownJob, UnknownModel, InvalidInput (an
        option) or JobConflict (a job that generated nothing, or has not ended) before anything is queued.
        """
        keys = JobKeys(job or new_job_id("verify"))
        store = self._ready_store(keys)
        there = lifecycle.read_spec(store, made)
        kind = kind_of(there)
        if kind.makes != "images":
            raise JobConflict(f"{made} generated nothing, its kind is {kind.name}; there is nothing to verify.")
        if not kind.seeded:
            raise JobConflict(
                f"{made} was made of other images ({there.source.label}), which its records do not hold; run its "
                "command again as a new job, and compare."
            )
        if lifecycle.read_end(store, made) is None:
            raise JobConflict(f"The job {made} has not ended; follow it to its end, then verify it.")
        record = self.model(there.model)
        spec = make_spec(
            Verify,
            id=keys.id,
            job=made,
            model=record.ref,
            weights_sha256=cast("SampledSpec", there).weights_sha256,
            sample=sample,
            output=templates.output(keys, store.bucket, None),
        )
        return self._begin(spec, None, None)

    def report(self, job: str, *, timeout: float = 60.0) -> str:
        """The page of a job, HTML. That of a classify job that has ended is made now where nobody has made it before.

        Raises JobConflict where the job has none, or none yet, and ServiceUnavailable where no worker has made it
        within `timeout` seconds.
        """
        return reports.fetch(self.backend, job, timeout=timeout)

    def history(self, job: str) -> list[dict[str, Any]]:
        """The figures of each epoch of a training so far: epoch, step, losses, metrics, learning_rate, seconds."""
        lifecycle.read_spec(self.backend.store, job)
        return lifecycle.read_history(self.backend.store, job)

    def cancel(self, job: str) -> Status:
        """Stop a job; its committed shards stay. Raises JobConflict where it has ended otherwise."""
        now = self.status(job)
        if now.state == "canceled":
            return now
        if now.ended:
            raise JobConflict(f"The job {job} has {now.state} already; there is nothing to cancel.")
        return lifecycle.close(self.backend, job, "canceled")

    def resume(self, job: str, progress: OnProgress | None = None) -> Status:
        """Go on with a job that was canceled, failed or got stuck, where the bucket says it stands.

        A local folder that was packed in part is packed to its end, on the machine that has it.
        Raises JobConflict where the job succeeded, InvalidSource where the folder is not here.
        """
        store = self.backend.store
        spec = lifecycle.read_spec(store, job)
        end = lifecycle.read_end(store, job)
        if end is not None and end.state == "succeeded":
            raise JobConflict(
                f"The job {job} has succeeded; there is nothing to resume. `imagemill retry {job}` runs "
                "failed images again."
            )
        rest = self._unpacked(spec)
        lifecycle.reopen(self.backend, job)
        if rest is not None:
            self._pack(cast("Classify", spec), rest, progress)
        return self.status(job)

    def retry(self, job: str) -> Status:
        """Run the failed images of an ended job again, and nothing else.

        Raises JobConflict where the job has not ended, or nothing failed.
        """
        store = self.backend.store
        lifecycle.read_classify(store, job)
        end = lifecycle.read_end(store, job)
        if end is None:
            raise JobConflict(f"The job {job} has not ended; follow it to its end, or cancel it, then retry.")
        plan = lifecycle.read_plan(store, job)
        if plan is None:
            raise JobConflict(f"The job {job} ended before it was planned; use `imagemill resume {job}`.")
        shards = unfinished(read_commits(store, job), plan.shards)
        if not shards:
            raise JobConflict(f"Nothing failed in {job}; there is nothing to retry.")
        number = 1 + max((r.number for r in lifecycle.read_retries(store, job)), default=0)
        retry = Retry(number=number, shards=tuple(shards))
        if not store.put_if_absent(JobKeys(job).retry(number), retry.to_json()):
            raise JobConflict(f"Somebody else retries {job} just now; follow it.")
        return lifecycle.reopen(self.backend, job)

    def rebuild(self, jobs: Sequence[str] | None = None) -> Iterator[Status]:
        """Write the ledger of `jobs`, or of all, anew from the bucket alone, one after the other."""
        self._checked_store()
        for job in self._in_bucket() if jobs is None else jobs:
            lifecycle.read_spec(self.backend.store, job)
            self.backend.ledger.forget(job)
            yield lifecycle.rebuild(self.backend, job)

    # Following jobs

    def status(self, job: str) -> Status:
        """How far a job is: from the ledger, or from the bucket where Redis does not answer."""
        try:
            return lifecycle.status(self.backend, job)
        except RedisUnavailable:
            return status_from_bucket(self.backend.store, job)

    def jobs(self) -> list[Status]:
        """Every job that the ledger or the bucket knows, newest first."""
        ids, status_of = set(self._in_bucket()), self.status
        try:
            ids.update(id for id, _ in self.backend.ledger.jobs())
        except RedisUnavailable as error:
            log.info("The list is from the bucket alone: %s", error)
            # Rather than wait for Redis again at each job.
            status_of = partial(status_from_bucket, self.backend.store)

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
        backend = Backend(self._patient.store, self.backend.ledger, self.backend.queues)
        heard = time.monotonic()
        while not stop.is_set():
            try:
                status = lifecycle.status(backend, job)
                heard = time.monotonic()
            except RedisUnavailable:
                if time.monotonic() - heard > self.settings.store_patience_seconds:
                    raise
                status = status_from_bucket(backend.store, job)
            yield status
            if status.ended:
                return
            stop.wait(_POLL_SECONDS)

    # Schedules

    def add_schedule(
        self,
        name: str,
        command: str,
        arguments: Mapping[str, Any],
        *,
        cron: str,
        timezone: str = "UTC",
        missed: Missed = "run",
    ) -> Scheduled:
        """Have a job made at each tick of a cron line, read on a clock in `timezone`.

        `command` is `classify`, `train`, `evaluate`, `generate` or `synthesize`, and `arguments` are those of the
        method of that name. A model `name` or `name@alias` is the version that it stands for at the tick. Ticks that
        passed while everything was down `run` once, or are left out with `skip`.

        Raises InvalidSchedule, also where the name is taken, and what the method raises; InvalidSource for images on
        this machine. Nothing is written then.
        """
        keys = JobKeys("schedule")
        request = make_request(command, arguments, self._ready_store(keys), self.settings)
        made = own_schedules.new_schedule(name, make_template(request), cron=cron, timezone=timezone, missed=missed)
        self._spec(request, keys)  # as the first tick would make it: what is wrong is said now
        Schedules(self.backend.store).add(made)
        return self.schedules(name)[0]

    def schedules(self, *names: str) -> list[Scheduled]:
        """These schedules, or all by name, with their next ticks and what came of the last one."""
        known = Schedules(self._checked_store()).names()
        return own_schedules.overview(self.backend, list(names) or known, self.status)

    def pause_schedule(self, name: str) -> Scheduled:
        """Let ticks pass without a run, until it is unpaused; they are not caught up. Raises UnknownSchedule."""
        self._checked_store()
        own_schedules.pause(self.backend, name)
        return self.schedules(name)[0]

    def unpause_schedule(self, name: str) -> Scheduled:
        """Run ticks again from now on. Raises UnknownSchedule."""
        self._checked_store()
        own_schedules.unpause(self.backend, name)
        return self.schedules(name)[0]

    def run_schedule(self, name: str) -> Status:
        """Make a job of a schedule at once, paused or not. Raises UnknownSchedule, UnknownModel or InvalidInput."""
        self._checked_store()
        return self.status(own_schedules.run(self.backend, name))

    def remove_schedule(self, name: str) -> None:
        """Remove a schedule and its history; its jobs stay, and go on. Raises UnknownSchedule."""
        self._checked_store()
        own_schedules.remove(self.backend, name)

    def schedule_history(self, name: str, limit: int = 50) -> list[Run]:
        """The newest ticks of a schedule and runs by hand, with their jobs, newest first. Raises UnknownSchedule."""
        self._checked_store()
        return own_schedules.history(self.backend, name, limit, self.status)

    # Reading results

    def results(self, job: str) -> Iterator[Row]:
        """The rows that are committed so far, failures too; columns as in `contract.data.label_rows`."""
        lifecycle.read_classify(self.backend.store, job)
        return results.rows(self.backend.store, job)

    def errors(self, job: str) -> Iterator[Row]:
        """The rows of the images that failed."""
        lifecycle.read_classify(self.backend.store, job)
        return results.rows(self.backend.store, job, failed=True)

    def export(self, job: str, format: Format, output: Path | TextIO, *, presign_hours: float = 0) -> Exported:
        """Write the results of a job to a file, or a folder for `imagefolder`, or text to an open stream.

        A file appears when it is whole. With `presign_hours` Label Studio gets web addresses that are
        good for so long, at most 168 h, instead of `s3://` ones. Raises InvalidInput where the format
        cannot be written to `output`.
        """
        spec = lifecycle.read_classify(self.backend.store, job)
        store = self.backend.store
        if format == "imagefolder" and isinstance(output, Path):
            images = Images(self._patient.store, self.settings.max_image_bytes)
            return Exported(*labels_imagefolder.write(results.with_items(store, job), output, images.read))
        if isinstance(output, Path):
            output.parent.mkdir(parents=True, exist_ok=True)
            partial = output.with_name(f".{output.name}.part")
            try:
                if format == "parquet":
                    tables = (table for _, table in results.tables(store, job))
                    exported = Exported(labels.write_parquet(tables, schema(embedding=spec.embed), partial))
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

    def export_images(
        self, job: str, layout: Layout, folder: str | Path, *, progress: OnImages | None = None
    ) -> DatasetStats:
        """Write the accepted images of a job that generated some as a data set, with card and Croissant metadata.

        What is in it is returned, class by class. The same call again goes on or replaces what is there; `progress`
        is told how many images are written, and of how many. Raises JobConflict for a job of another kind, one that
        has not ended or one without images, InvalidInput where `folder` has other files or `layout` cannot hold the
        images, and ObjectDamaged where something is not what was committed.
        """
        return export.export(self._patient.store, job, layout, Path(folder), progress)

    def _export_text(self, spec: Classify, format: Format, out: TextIO, presign_hours: float) -> Exported:
        store = self.backend.store
        rows = results.rows(store, spec.id)
        if format == "jsonl":
            return Exported(labels.write_jsonl(rows, out))
        if format == "csv":
            return Exported(labels.write_csv(rows, out, schema(embedding=spec.embed).names))

        def address(uri: str) -> str:
            if presign_hours and uri.startswith("s3://") and "#" not in uri and not uri.endswith("/"):
                bucket, key = parse_s3(uri)
                return store.presign(key, bucket=bucket, hours=presign_hours)
            return uri

        return Exported(*labels.write_labelstudio(rows, out, address))

    # Steps

    def _checked_store(self) -> ObjectStore:
        store = self.backend.store
        if not store.bucket_exists(store.bucket):
            raise InvalidSettings(
                f"There is no bucket {store.bucket!r} at {store.endpoint}; `imagemill up` creates it, or set "
                "IMAGEMILL_BUCKET to one that exists."
            )
        return store

    def _ready_store(self, keys: JobKeys) -> ObjectStore:
        """The store, once Redis has answered too: a job needs both, and it is known before anything is read."""
        store = self._checked_store()
        self.backend.ledger.exists(keys.id)
        return store

    def _spec(self, request: Request[S], keys: JobKeys, *, packed: bool = False) -> S:
        """The spec of a request; local images go into tars, which are planned as they are `packed` or by nobody."""
        store, found = self.backend.store, request.found
        self._check_output(request.to)
        fields = templates.pin(request.fields, request.name, Registry(store))
        if isinstance(found, images.Packed) and not packed:
            uri = f"s3://{store.bucket}/{keys.input_prefix}"
            fields[request.place] = Source(kind="uploaded", uri=uri, label=found.label)
        elif found is not None:
            fields[request.place] = found.source(keys, store.bucket)
        output = templates.output(keys, store.bucket, request.to)
        return make_spec(request.kind, id=keys.id, output=output, **fields)

    def _begin(self, spec: S, found: images.Resolved | None, progress: OnProgress | None) -> Status:
        """Bring what is local to the store, unless the job is there already, and queue the job."""
        keys = JobKeys(spec.id)
        spec, known = self._known(spec, another_spelling=isinstance(found, images.Packed))
        if isinstance(found, images.Upload | images.Pair) and not known:
            self._upload(found, keys, progress)
        elif isinstance(found, images.Packed) and not known:
            upload(
                self._patient.store,
                keys,
                found,
                max_bytes=self.settings.max_image_bytes,
                progress=progress or (lambda _: None),
            )
        lifecycle.submit(self.backend, spec)
        return self.status(spec.id)

    def _check_output(self, to: str | None) -> None:
        store = self.backend.store
        if to is not None and not store.bucket_exists(parse_s3(to)[0]):
            raise InvalidSource(
                f"There is no bucket {parse_s3(to)[0]!r} at {store.endpoint} for the results; create it."
            )

    def _known(self, spec: S, *, another_spelling: bool) -> tuple[S, bool]:
        """The spec as it was first submitted, and whether it was.

        `another_spelling` of the same folder (`photos`, `./photos/`) is no other job; of an upload the
        name is all that tells it from another. Two first calls at the same instant both answer False,
        and `submit` settles them.
        """
        try:
            there = lifecycle.read_spec(self.backend.store, spec.id)
        except UnknownJob:
            return spec, False
        if another_spelling and "source" in type(spec).model_fields and spec.source.uri == there.source.uri:
            source = spec.source.model_copy(update={"label": there.source.label})
            spec = spec.model_copy(update={"source": source})
        if type(spec) is not type(there) or spec != there:
            raise JobConflict(
                f"The job {spec.id!r} exists with {_differences(spec, there)}; choose another --job, or leave it out."
            )
        return there, True

    def _upload(self, upload: images.Upload | images.Pair, keys: JobKeys, progress: OnProgress | None) -> None:
        store = self._patient.store
        for done, file in enumerate(upload.files, 1):
            key = upload.key(file, keys)
            try:
                there = store.size(key) == file.stat().st_size
            except ObjectNotFound:
                there = False
            if not there or upload.renamed:
                store.put_file(key, file)
            if progress:
                progress(Progress(done, done, len(upload.files), "files"))

    def _pack(self, spec: Classify, source: images.Packed, progress: OnProgress | None) -> None:
        pack(
            self._patient,
            spec,
            source,
            max_bytes=self.settings.max_image_bytes,
            progress=progress or (lambda _: None),
        )

    def _unpacked(self, spec: Spec) -> images.Packed | None:
        """What is left to pack of a job, None where nothing is."""
        if (
            not source_kind(spec.source.kind).packed_by_producer
            or lifecycle.read_plan(self.backend.store, spec.id) is not None
        ):
            return None
        path = images.from_file_uri(spec.source.uri)
        if not path.exists():
            raise InvalidSource(
                f"{path} is not packed to its end and not on this machine; resume {spec.id} where it is."
            )
        found = images.resolve(str(path), self.backend.store, cast("Classify", spec).frames)
        if not isinstance(found, images.Packed):
            raise JobConflict(f"{path} has changed since {spec.id} was begun; start a new job.")
        return found

    def _in_bucket(self) -> list[str]:
        entries = self._checked_store().list(JOBS, folders=True)
        return [entry.key.removeprefix(JOBS).rstrip("/") for entry in entries if entry.key.endswith("/")]


def new_job_id(kind: str) -> str:
    """An id that sorts by time (UTC) within its kind, and that nobody else has."""
    return f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def make_spec(kind: type[S], **fields: object) -> S:
    """The spec of a job; raises InvalidInput naming the option that cannot be."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "spec"
        if name == "id":
            raise InvalidInput(
                f"{fields['id']!r} is no job id; use up to 63 of a-z, 0-9 and -, a letter or digit first."
            ) from None
        raise InvalidInput(f"--{name.replace('_', '-')}: {first['msg'].removeprefix('Value error, ')}.") from None


def _differences(spec: Spec, there: Spec) -> str:
    ours, theirs = spec.model_dump(), there.model_dump()
    if spec.kind != there.kind:
        return f"another kind, {there.kind}"
    for name in theirs:
        if name not in ("source", "ends") and ours[name] != theirs[name]:
            return f"{name} {theirs[name]}, not {ours[name]}"
    return f"the source {there.source.label}, not {spec.source.label}"
