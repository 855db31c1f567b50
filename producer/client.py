"""The Python client: submit jobs, follow them, and read what they made.

It is a thin facade over `producer.jobs`, `producer.models` and `producer.exports`, and holds no state but connections.
Whatever can be wrong with a job is found before anything is queued.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, Unpack

from contract.backend import uploads
from contract.backend.heartbeats import Worker
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.datasets.records import Version
from contract.datasets.versions import Datasets
from contract.errors import InvalidSettings, UnknownSchedule, UnknownWatch
from contract.fleet import drain
from contract.fleet.snapshot import Fleet, read_fleet
from contract.jobs import lifecycle, results
from contract.jobs.lifecycle import Backend
from contract.jobs.options import (
    ClassifyKeywords,
    ClassifyOptions,
    EvaluateKeywords,
    EvaluateOptions,
    GenerateKeywords,
    GenerateOptions,
    JobOptions,
    SynthesizeKeywords,
    SynthesizeOptions,
    TrainKeywords,
    TrainOptions,
    VerifyKeywords,
    VerifyOptions,
    WatchKeywords,
    WatchOptions,
    check_share,
    parse_options,
)
from contract.jobs.results import Row
from contract.jobs.retention import Found
from contract.jobs.reviews import agreement, verdicts
from contract.jobs.reviews.agreement import ReviewSummary
from contract.jobs.reviews.rows import reviewed_rows
from contract.jobs.reviews.tally import Tally
from contract.jobs.schedules import Missed, Schedules
from contract.jobs.status import Status
from contract.jobs.templates import fill
from contract.keys.bucket import JOBS
from contract.keys.jobs import JobKeys
from contract.models.registry import Model, Registry, Scalar, Task
from contract.online.blocking import BlockingOnline
from contract.online.connection import need_address
from contract.online.messages import DEADLINE_SECONDS
from contract.online.served import ServedModels
from contract.online.state import ServedState, announce, read_states
from contract.records import ImageFormat, Precision, Priority
from contract.settings import Settings, current
from contract.telemetry import traces
from contract.watches.record import Watches
from contract.web.addresses import AddressPolicy
from contract.web.client import WebClient
from contract.web.webhooks.endpoints import ROTATION_SECONDS, Endpoint, Endpoints
from contract.web.webhooks.outbox import Outbox, Told
from producer import datasets as own_datasets
from producer import models as own_models
from producer.datasets import DatasetSummary
from producer.jobs import (
    cleaning,
    following,
    label_studio,
    pages,
    reports,
    submission,
    watched_rows,
)
from producer.jobs import schedules as own_schedules
from producer.jobs import watches as own_watches
from producer.jobs import webhooks as own_webhooks
from producer.jobs.import_report import ImportReport
from producer.jobs.listing import without_gone
from producer.jobs.replays import make_replay
from producer.jobs.requests import check_command, make_request, make_template, make_watch_template
from producer.jobs.schedules import Run, Scheduled
from producer.jobs.submission import OnProgress, new_job_id
from producer.jobs.watches import Watched
from producer.jobs.webhooks import Webhook
from producer.sources.read import Images
from producer.uploads.feed import SETTLE_SECONDS, feed, own_prefix
from producer.uploads.upload import Uploaded

if TYPE_CHECKING:
    from contract.data.dataset_stats import DatasetStats
    from producer.exports.images.export import OnImages
    from producer.exports.labels.export import Written


def _ignore(_: object) -> None:
    """Stand in for a callback that was not given."""


class Client:
    """A client of one Redis and one object store; `settings` default to those of the environment.

    Every method raises RedisUnavailable or StoreUnavailable if a server does not answer, InvalidSettings if one refuses
    the credentials, and UnknownJob for an id that is no job.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or current()
        # Gives up within seconds: somebody waits for the answer.
        ledger = Ledger(self.settings, patience=3.0, interactive=True)
        self._queues = Queues(self.settings, ledger.circuit)
        self.backend = Backend(ObjectStore(self.settings, patience=5.0), ledger, self._queues)
        # Waits through a restart: half of a long upload is done.
        patience = self.settings.store_patience_seconds
        self._patient = Backend(
            ObjectStore(self.settings, patience=patience), Ledger(self.settings, patience=10.0), self._queues
        )
        self._lock = threading.Lock()
        self._asks: BlockingOnline | None = None

    def close(self) -> None:
        """Close the idle connections; a later call opens them again."""
        with self._lock:
            if self._asks is not None:
                self._asks.close()
                self._asks = None
        for backend in (self.backend, self._patient):
            backend.ledger.close()
            backend.store.close()
        self._queues.close()

    def acting_as(self, owner: str) -> Client:
        """Return a client on the same connections, whose jobs, models, schedules and watches belong to `owner`."""
        acting = copy.copy(self)
        acting.settings = self.settings.model_copy(update={"owner": owner})
        return acting

    # Submitting jobs

    def submit(self, options: JobOptions, *, job: str | None = None, progress: OnProgress | None = None) -> Status:
        """Submit the job that a command's options describe; return when it is queued, not when it is done.

        Local images are uploaded, and `progress` is called on the way. `job` names the job: the same call again is the
        same job, and continues an interrupted upload.

        Raises InvalidSource, UnknownModel, InvalidInput (an option) or JobConflict (the id belongs to another job)
        before anything is queued.
        """
        traces.set_up(self.settings, "imagemill-producer")
        began = time.time()
        self._queues.prepare()
        keys = JobKeys(job or new_job_id(options.command))
        request = make_request(options, self._ready_store(keys), self.settings)
        spec = submission.make_spec(request, keys, self.backend.store)
        limit = self.settings.max_image_bytes
        owner = self.settings.owns_as
        submission.begin(
            self.backend, self._patient, spec, request.found, owner=owner, max_bytes=limit, progress=progress
        )
        created = partial(lifecycle.read_created, self.backend.store, keys.id)
        traces.record("submit", keys.id, created, began, command=options.command)
        return self.status(keys.id)

    def classify(
        self,
        source: str | Path,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[ClassifyKeywords],
    ) -> Status:
        """Label every image of `source`: a local folder, an `s3://` prefix, a manifest, or tars.

        A model of sequences labels each folder of frames, each animation, or each manifest row with `frames`. The
        options are the fields of `ClassifyOptions`. Returns and raises like `submit`.
        """
        return self.submit(parse_options(ClassifyOptions, {"source": source, **options}), job=job, progress=progress)

    def train(
        self,
        family: str,
        source: str | Path | Sequence[str | Path],
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[TrainKeywords],
    ) -> Status:
        """Train a model of `family` on `source`, and publish it as the next version of `name`.

        `source` is a folder of class folders, tars, a prefix, a manifest with a column `label`, IDX files, or
        `job:ID`, the labels of an earlier job; several that are in the store are read one behind the other. `settings`
        are `key=value` of the family's recipe (`contract.models.recipes`). The options are the fields of
        `TrainOptions`. Returns and raises like `submit`.
        """
        given = {"family": family, "source": source, **options}
        return self.submit(parse_options(TrainOptions, given), job=job, progress=progress)

    def evaluate(
        self,
        model: str,
        source: str | Path,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[EvaluateKeywords],
    ) -> Status:
        """Evaluate a model on `source`, labelled images as `train` takes them; of IDX files, the test part.

        A generator is compared with images that it was not trained on, in the features of the classifier `features`.
        The options are the fields of `EvaluateOptions`. Returns and raises like `submit`.
        """
        given = {"model": model, "source": source, **options}
        return self.submit(parse_options(EvaluateOptions, given), job=job, progress=progress)

    def generate(
        self,
        model: str,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[GenerateKeywords],
    ) -> Status:
        """Generate `count` images, spread evenly over `classes`; or encode and decode images with a VAE.

        `reconstruct` is a source as `train` takes it, whose first `count` images are encoded and decoded; `interpolate`
        are two images of the one class in `classes`, files or `s3://` addresses. Image `i` of a class depends on the
        weights and the options alone, so a larger count contains a smaller one. The options are the fields of
        `GenerateOptions`. Returns and raises like `submit`.
        """
        return self.submit(parse_options(GenerateOptions, {"model": model, **options}), job=job, progress=progress)

    def synthesize(
        self,
        model: str,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[SynthesizeKeywords],
    ) -> Status:
        """Generate images until `per_class` of each class are accepted by the classifier `gate`.

        With `extend`, the images become the next version of that dataset. Candidates are also rejected nearer than
        `dedup` to an accepted image, and nearer than `copy_distance` to an
        image of `away_from`, both cosine distances between features of the gate. The job fails, and keeps what it has,
        if a class falls short after `max_attempts` candidates per image wanted. The options are the fields of
        `SynthesizeOptions`. Returns and raises like `submit`.
        """
        return self.submit(parse_options(SynthesizeOptions, {"model": model, **options}), job=job, progress=progress)

    def verify(self, made: str, *, job: str | None = None, **options: Unpack[VerifyKeywords]) -> Status:
        """Generate `sample` images of the job `made` again, and compare them with its files.

        The new job fails if a pixel differs by more than 1 of 255. Returns and raises like `submit`; JobConflict also
        if `made` drew no images from a seed, or has not ended.
        """
        return self.submit(parse_options(VerifyOptions, {"made": made, **options}), job=job)

    # Following and steering jobs

    def status(self, job: str) -> Status:
        """Return how far a job is, from the ledger, or from the bucket if Redis does not answer."""
        return following.status(self.backend, job)

    def jobs(self, *, limit: int | None = None, before: str = "") -> list[Status]:
        """Return every job that the ledger or the bucket knows, newest first, which reads all of them.

        With `limit`, return a page from the index: jobs that have not ended, then the others by their ends, newest
        first; `before` is the last job of the page before. Raises UnknownJob if that has not ended.
        """
        if limit is None:
            return following.list_jobs(self.backend, self._in_bucket())
        cleaning.complete_index(self._checked_store())
        return pages.page(self.backend, limit, before)

    def remove_jobs(self, jobs: Sequence[str]) -> list[Found]:
        """Delete jobs that have ended, with all that lies in the job's own folder; return what that took.

        Raises UnknownJob, and JobConflict if one has not ended or another job needs its images; nothing is deleted
        then.
        """
        self._checked_store()
        return list(cleaning.remove(self.backend, jobs))

    def gc(self, *, dry_run: bool = False) -> Iterator[Found]:
        """Delete what nobody needs, and yield what it was and how much; with `dry_run` nothing is deleted."""
        self._checked_store()
        settings = self.settings
        return cleaning.collect(self.backend, settings.keep_days, settings.keep_uploads_days, dry_run=dry_run)

    def rebuild_index(self) -> None:
        """Build the index of jobs anew from the jobs themselves."""
        cleaning.build_index(self._checked_store())

    def follow(self, job: str, stop: threading.Event | None = None) -> Iterator[Status]:
        """Yield the status of a job twice a second, until it has ended or `stop` is set.

        Reads the bucket while Redis is away; raises RedisUnavailable after `store_patience_seconds` without it.
        """
        backend = replace(self.backend, store=self._patient.store)
        return following.follow(backend, job, patience=self.settings.store_patience_seconds, stop=stop)

    def history(self, job: str) -> list[dict[str, Any]]:
        """Return the figures of each epoch of a training so far: losses, metrics, learning_rate, seconds, …"""
        lifecycle.read_spec(self.backend.store, job)
        return lifecycle.read_history(self.backend.store, job)

    def set_share(
        self,
        job: str,
        *,
        priority: Priority | None = None,
        weight: float | None = None,
        max_slots: int | None = None,
    ) -> Status:
        """Change which part of the slots a job gets from now on; None leaves a part as it is.

        Raises InvalidInput for what no share can be, and JobConflict if the job has ended.
        """
        given = {"priority": priority, "weight": weight, "max_slots": max_slots}
        check_share({name: value for name, value in given.items() if value is not None})
        return lifecycle.set_share(self.backend, job, priority=priority, weight=weight, max_slots=max_slots)

    def cancel(self, job: str) -> Status:
        """Stop a job, keep its committed shards, and return its end.

        Raises JobConflict if it has succeeded or failed, be it while this call was under way.
        """
        return lifecycle.cancel(self.backend, job)

    def resume(self, job: str, progress: OnProgress | None = None) -> Status:
        """Continue a job that was canceled, failed or got stuck, from what the bucket holds.

        A local folder that was packed in part is packed to its end. Raises JobConflict if the job succeeded, and
        InvalidSource if the folder is not on this machine.
        """
        limit = self.settings.max_image_bytes
        submission.resume(self.backend, self._patient, job, max_bytes=limit, progress=progress)
        return self.status(job)

    def retry(self, job: str) -> Status:
        """Run only the failed images of an ended job again; raises JobConflict if it is running or nothing failed."""
        return submission.retry(self.backend, job)

    def rebuild(self, jobs: Sequence[str] | None = None) -> Iterator[Status]:
        """Rewrite the ledger entries of `jobs`, or of all jobs, from the bucket alone; yield each status."""
        self._checked_store()
        for job in self._in_bucket() if jobs is None else jobs:
            yield lifecycle.rebuild(self.backend, job, anew=True)

    # Reading what a job made

    def results(self, job: str) -> Iterator[Row]:
        """Yield the rows committed so far, failures included; columns as in `contract.data.label_rows`."""
        lifecycle.read_classify(self.backend.store, job)
        return results.rows(self.backend.store, job)

    def errors(self, job: str) -> Iterator[Row]:
        """Yield the rows of the images that failed."""
        lifecycle.read_classify(self.backend.store, job)
        return results.rows(self.backend.store, job, failed=True)

    def reviewed(self, job: str) -> Iterator[Row]:
        """Yield the rows that somebody reviewed in the console, with the reviewed `label`.

        The model's is in `predicted`, `reviewed_by` and `reviewed_at` say who said so and when, and `disputed` whether
        the reviewers disagree.
        """
        lifecycle.read_classify(self.backend.store, job)
        return reviewed_rows(self.backend.store, job)

    def reviews(self, job: str) -> ReviewSummary:
        """Return who reviewed a job, how far each two of them agree, and on which images they do not."""
        lifecycle.read_classify(self.backend.store, job)
        return agreement.summary(job, Tally(verdicts.given(self.backend.store, job)))

    def import_reviews(self, job: str, file: str | Path) -> ImportReport:
        """Import the annotations of a Label Studio export, JSON or JSON-MIN, as verdicts on a job's labels.

        The same annotation again changes nothing. Raises InvalidInput for what is no export.
        """
        from producer.jobs.import_reviews import bring  # it loads Arrow

        lifecycle.read_classify(self.backend.store, job)
        event = label_studio.Event(given=tuple(label_studio.parse_export(label_studio.read_file(Path(file)))))
        return bring(self.backend.store, job, event, by=self.settings.owns_as)

    def write_results(self, job: str, format: str, output: Path | TextIO, *, presign_hours: float = 0) -> Written:
        """Write the rows committed so far, in a format of `producer.exports.formats.LABELS`.

        `output` is a file, a folder for formats that hold the images too, or an open stream for text formats.
        A file appears when it is complete. With `presign_hours`, up to 168, Label Studio gets web addresses that are
        valid for that long in place of `s3://` ones. Raises InvalidInput if the format cannot be written to `output`.
        """
        from producer.exports.labels.export import export  # they load Arrow
        from producer.exports.labels.source import labels_of

        spec = lifecycle.read_classify(self.backend.store, job)
        images = Images(self._patient.store, self.settings.max_image_bytes, WebClient.of(self.settings))
        labels = labels_of(self.backend.store, spec, images.read, presign_hours=presign_hours)
        return export(labels, format, output)

    def export(self, job: str, format: str, folder: str | Path, *, progress: OnImages | None = None) -> DatasetStats:
        """Write the accepted images of a job as a dataset, with a card and Croissant metadata; return its counts.

        `job` may also be `dataset:NAME[@V]`, the images of all versions of a dataset up to that one.
        `format` is one of `producer.exports.formats.IMAGES`.
        The same call again continues, or replaces what is there. `progress` gets the number of images written and
        their total. Raises JobConflict for a job without images or one that has not ended, InvalidInput if `folder`
        holds other files or `format` cannot hold the images, and ObjectDamaged if a file is not what was committed.
        """
        from producer.exports.images.export import export  # it loads Arrow

        return export(self._patient.store, job, format, Path(folder), progress)

    def report(self, job: str, *, timeout: float = 60.0) -> str:
        """Return the page of a job as HTML; that of a classify job is made on the first call.

        Raises JobConflict if the job has no page, or none yet, and ServiceUnavailable if no worker has made it within
        `timeout` seconds.
        """
        return reports.fetch(self.backend, job, timeout=timeout)

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
        """Submit a job at each tick of a cron line, read on a clock in `timezone`.

        `command` is the method that submits a job, such as `classify`, and `arguments` are its own. A model `name` or
        `name@alias` is resolved at each tick. Ticks that passed while everything was down `run` once, or are skipped.

        Raises InvalidSchedule, also if the name is taken, what the method raises, and InvalidSource for images on this
        machine; nothing is written then.
        """
        keys = JobKeys("schedule")
        options = parse_options(check_command(command), arguments)
        request = make_request(options, self._ready_store(keys), self.settings)
        made = own_schedules.new_schedule(
            name,
            make_template(request),
            cron=cron,
            timezone=timezone,
            missed=missed,
            owner=self.settings.owns_as,
        )
        submission.make_spec(request, keys, self.backend.store, scheduled=True)  # to find mistakes now
        uploads.use(self.backend.store, made.to_json().decode())
        Schedules(self.backend.store).add(made)
        return self.schedules(name)[0]

    def schedules(self, *names: str) -> list[Scheduled]:
        """Return these schedules, or all by name, with their next ticks and their last run."""
        store, show = self._checked_store(), partial(own_schedules.overview, self.backend, status_of=self.status)
        return show(list(names)) if names else without_gone(show, UnknownSchedule)(Schedules(store).names())

    def pause_schedule(self, name: str) -> Scheduled:
        """Let ticks pass without a job until it is unpaused; they are not caught up.

        Raises UnknownSchedule and NotOwner.
        """
        self._checked_store()
        own_schedules.pause(self.backend, name, self.settings.owns_as)
        return self.schedules(name)[0]

    def unpause_schedule(self, name: str) -> Scheduled:
        """Submit jobs again from the next tick on. Raises UnknownSchedule and NotOwner."""
        self._checked_store()
        own_schedules.unpause(self.backend, name, self.settings.owns_as)
        return self.schedules(name)[0]

    def run_schedule(self, name: str) -> Status:
        """Submit the job of a schedule now, paused or not. Raises UnknownSchedule, UnknownModel or InvalidInput."""
        self._checked_store()
        return self.status(own_schedules.run(self.backend, name))

    def remove_schedule(self, name: str) -> None:
        """Remove a schedule and its history; its jobs stay. Raises UnknownSchedule and NotOwner."""
        self._checked_store()
        own_schedules.remove(self.backend, name, self.settings.owns_as)

    def own_schedule(self, name: str) -> Scheduled:
        """Take a schedule over: from then on only this owner (`IMAGEMILL_OWNER`) changes it. Raises UnknownSchedule."""
        Schedules(self._checked_store()).own(name, self.settings.owns_as)
        return self.schedules(name)[0]

    def schedule_history(self, name: str, limit: int = 50) -> list[Run]:
        """Return the newest runs of a schedule with their jobs, newest first. Raises UnknownSchedule."""
        self._checked_store()
        return own_schedules.history(self.backend, name, limit, self.status)

    # Watches

    def add_watch(self, name: str, source: str, **options: Unpack[WatchKeywords]) -> Watched:
        """Label what is under the `s3://` prefix `source` and what comes there, each object once.

        The options are those of `classify`, and `every`, `start`, `overwrites`, `archive` and `then` of `WatchOptions`.
        Raises InvalidWatch, also if the name is taken, and UnknownModel; nothing is written then.
        """
        given = {"name": name, "source": source, **options}
        return self.submit_watch(parse_options(WatchOptions, given))

    def submit_watch(self, options: WatchOptions) -> Watched:
        """Add the watch that a command's options describe; raises what `add_watch` does."""
        store = self._ready_store(JobKeys("watch"))
        template = make_watch_template(options, store, self.settings)
        made = own_watches.new_watch(options, template, store, owner=self.settings.owns_as)
        fill(template, id=made.job(0), store=store)  # as the first segment would, to find mistakes now
        Watches(store).add(made)
        return self.watch(made.name)

    def add_upload_watch(self, name: str, **options: Unpack[WatchKeywords]) -> Watched:
        """Add a watch that is fed by `upload_to_watch`, on a prefix of its own in Imagemill's bucket.

        The options are those of `add_watch`, and so are the errors.
        """
        return self.add_watch(name, own_prefix(self._ready_store(JobKeys("watch")), name), **options)

    def upload_to_watch(
        self,
        name: str,
        folder: str | Path,
        *,
        under: str = "",
        settle: float = SETTLE_SECONDS,
        once: bool = False,
        stop: threading.Event | None = None,
        say: Callable[[str], None] | None = None,
        progress: Callable[[Uploaded], None] | None = None,
    ) -> Uploaded:
        """Upload the images that appear below a local folder to the prefix of a watch, until `stop` is set.

        A file is sent when its size and time have stood still for `settle` seconds, and again if it changes; `under`
        is a folder below the prefix. With `once` it returns when everything that is there was sent. `say` is told a
        sentence about each file that cannot be sent, and about a store that is away, which is waited for.

        Raises UnknownWatch, also if the watch is removed meanwhile, InvalidSource if there is no such folder, and
        InvalidInput if another process uploads it. It uses the store alone, not Redis.
        """
        return feed(
            self.backend.store,
            self.settings,
            name,
            folder,
            under=under,
            settle=settle,
            once=once,
            stop=stop,
            say=say or _ignore,
            progress=progress or _ignore,
        )

    def watch(self, name: str) -> Watched:
        """Return a watch and how it stands; raises UnknownWatch."""
        return own_watches.shown(self.backend, name)

    def watches(self) -> list[Watched]:
        """Return every watch by name, and how each stands."""
        names, show = Watches(self._checked_store()).names(), partial(own_watches.overview, self.backend)
        return without_gone(show, UnknownWatch)(names)

    def pause_watch(self, name: str) -> Watched:
        """Plan nothing more until the watch is unpaused; what is planned goes on. Raises UnknownWatch and NotOwner."""
        own_watches.pause(self.backend, name, self.settings.owns_as)
        return self.watch(name)

    def unpause_watch(self, name: str) -> Watched:
        """Go on where the watch was paused: what came meanwhile is labelled too. Raises UnknownWatch and NotOwner."""
        own_watches.pause(self.backend, name, self.settings.owns_as, paused=False)
        return self.watch(name)

    def remove_watch(self, name: str) -> None:
        """Remove a watch and what it has seen; its jobs and their rows stay. Raises UnknownWatch and NotOwner."""
        Watches(self._checked_store()).remove(name, self.settings.owns_as)

    def own_watch(self, name: str) -> Watched:
        """Take a watch over: from then on only this owner (`IMAGEMILL_OWNER`) changes it. Raises UnknownWatch.

        The segment that is open stays its earlier owner's job; those that follow are this owner's.
        """
        Watches(self._checked_store()).own(name, self.settings.owns_as)
        return self.watch(name)

    def replay_watch(self, name: str, *, begin: datetime, end: datetime | None = None, model: str) -> Status:
        """Label what a watch planned from `begin` until before `end`, by default now, with another model or version.

        That is one job, with the watch's other options; the same call with the same version is the same job. Raises
        UnknownWatch, UnknownModel, InvalidInput for a span in which nothing was planned or that is not past, and
        InvalidSource if the job of a segment in it was deleted.
        """
        watch = Watches(self._ready_store(JobKeys("watch"))).get(name)
        spec = make_replay(self.backend.store, watch, begin, end or datetime.now(UTC), model=model)
        owner, limit = self.settings.owns_as, self.settings.max_image_bytes
        submission.begin(self.backend, self._patient, spec, None, owner=owner, max_bytes=limit, progress=None)
        return self.status(spec.id)

    def watched_rows(
        self, name: str, *, since: datetime | None = None, follow: bool = False, stop: threading.Event | None = None
    ) -> Iterator[Row]:
        """Yield the rows of a watch, failures included, those planned at `since` or later.

        With `follow`, go on with rows as they are committed, until `stop` is set. Raises UnknownWatch.
        """
        watch = Watches(self._checked_store()).get(name)
        return watched_rows.rows(self._patient.store, watch, since=since, follow=follow, stop=stop)

    # Webhooks

    def add_webhook(self, url: str) -> Webhook:
        """Make a webhook of a URL, as the first job with `webhook` does; raises InvalidInput if it may not be reached.

        A method below takes its id or, from its owner, the URL, and raises UnknownWebhook and NotOwner.
        """
        store = self._checked_store()
        made = Endpoints(store).register(url, self.settings.owns_as, AddressPolicy.of(self.settings))
        return own_webhooks.overview(store, made)

    def webhooks(self) -> list[Webhook]:
        """Return every webhook and how it stands."""
        store = self._checked_store()
        return [own_webhooks.overview(store, one) for one in Endpoints(store).all()]

    def webhook(self, name: str) -> Webhook:
        """Return a webhook and how it stands."""
        return own_webhooks.overview(self.backend.store, self._webhook(name))

    def webhook_messages(self, name: str, *, limit: int = 100, before: str = "") -> list[Told]:
        """Return messages to a webhook and where each stands, newest first, those behind the id `before`."""
        found = self._webhook(name)
        return Outbox(self.backend.store).messages(found.id, limit=limit, before=before)

    def webhook_secret(self, name: str) -> str:
        """Return the secret with which messages to a webhook are signed, for its receiver."""
        found = self._webhook(name)
        return Endpoints(self.backend.store).secrets(found.id)[0]

    def rotate_webhook(self, name: str, *, keep: float = ROTATION_SECONDS) -> str:
        """Return a new secret of a webhook; messages carry a signature by the earlier one too for `keep` seconds."""
        return Endpoints(self.backend.store).rotate(self._webhook(name).id, keep=keep)

    def resend_webhook(self, name: str, messages: Sequence[str] = ()) -> list[Told]:
        """Send messages again, with the same ids, or those of the newest 1,000 that were given up."""
        return own_webhooks.resend(self.backend.store, self._webhook(name), messages)

    def enable_webhook(self, name: str) -> Webhook:
        """Send messages again to a webhook that answered 410."""
        Endpoints(self.backend.store).enable(self._webhook(name).id)
        return self.webhook(name)

    def remove_webhook(self, name: str) -> None:
        """Remove a webhook, its secret and its messages, those that wait too; what names it goes on, untold.

        Raises InvalidInput for the one that `IMAGEMILL_WEBHOOK_URL` has controllers tell of everything.
        """
        own_webhooks.remove(self.backend.store, self._webhook(name))

    def _webhook(self, name: str) -> Endpoint:
        return Endpoints(self._checked_store()).owned(name, self.settings.owns_as)

    # Datasets

    def datasets(self, *, limit: int = 100, after: str = "") -> list[DatasetSummary]:
        """Return datasets in the order of their names, those behind `after`, each at its newest version."""
        return own_datasets.page(self._checked_store(), limit, after)

    def dataset(self, ref: str) -> DatasetSummary:
        """Return the dataset `name`, `name@number` or `name@time` with its counts; raises UnknownDataset."""
        return own_datasets.summary(self._checked_store(), ref)

    def dataset_versions(self, name: str, *, limit: int = 100, before: int = 0) -> list[Version]:
        """Return versions of a dataset, newest first, those before the number `before`; raises UnknownDataset."""
        return own_datasets.versions(self._checked_store(), name, limit, before)

    def remove_dataset(self, name: str) -> int:
        """Remove a dataset; return how many jobs hold its images, which stay.

        Raises UnknownDataset, NotOwner, and JobConflict while a job that has not ended or a schedule needs it.
        """
        return own_datasets.remove(self._checked_store(), name, self.settings.owns_as)

    def own_dataset(self, name: str) -> DatasetSummary:
        """Take a dataset over: from then on only this owner (`IMAGEMILL_OWNER`) extends and removes it.

        A job that was extending it goes on. Raises UnknownDataset.
        """
        store = self._checked_store()
        Datasets(store).own(name, self.settings.owns_as)
        return own_datasets.summary(store, name)

    # Models and workers

    def models(self) -> list[Model]:
        """Return every model of the registry, by name, newest version first."""
        return Registry(self._checked_store()).models()

    def model(self, ref: str, *, tasks: Sequence[Task] = ()) -> Model:
        """Return the model `name`, `name@version` or `name@alias`; raises UnknownModel with the nearest names.

        With `tasks`, raises InvalidInput for a model that does something else.
        """
        return Registry(self._checked_store()).get(ref, tasks=tasks)

    def aliases(self, name: str) -> dict[str, int]:
        """Return the aliases of a model with the version of each."""
        return Registry(self._checked_store()).aliases(name)

    def set_alias(self, ref: str, alias: str) -> Model:
        """Point `name@alias` to the version that `ref` is now, and return that model.

        Raises UnknownModel for `ref`, InvalidInput for an alias that cannot be, and NotOwner.
        """
        registry = Registry(self._checked_store())
        model = registry.get(ref)
        registry.set_alias(model.name, alias, model.version, self.settings.owns_as)
        return model

    def remove_alias(self, ref: str) -> None:
        """Remove the alias `name@alias`; raises UnknownModel if there is none, and NotOwner."""
        name, _, alias = ref.partition("@")
        Registry(self._checked_store()).remove_alias(name, alias, self.settings.owns_as)

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
        """Publish a `.pt2` or `.safetensors` file as the next version of `name`, once a worker has run it.

        A `.pt2` of `torch.export.save` needs no code on the worker. It maps float32 [n, channels, size, size], pixel
        values minus `mean` over `std`, to logits [n, labels] or to a tuple of logits and features [n, d]. A
        `.safetensors` holds the weights of a `family` of the zoo, built with `config`.

        Raises InvalidInput for a mistake here or one that the worker finds, and ServiceUnavailable if no worker tried
        the model within `timeout` seconds; nothing is published then.
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
            file.name,
            lambda: own_models.measured(file),
            labels=labels,
            preprocess=preprocess,
            family=family,
            config=config or {},
            license=license,
            source=source,
            owner=self.settings.owns_as,
        )
        store = self._patient.store
        backend = replace(self.backend, store=store)
        return own_models.push(backend, draft, lambda key: store.put_file(key, file), timeout=timeout)

    def pull_model(self, ref: str, into: str | Path) -> list[Path]:
        """Write the record and the files of a model into a folder, verified by their sha256; return their paths."""
        registry = Registry(self._checked_store())
        return own_models.pull(registry, registry.get(ref), Path(into))

    def remove_model(self, ref: str) -> Model:
        """Remove the version `name@version`, whose number is not used again; jobs that pin it fail.

        Raises UnknownModel, InvalidInput without a version, JobConflict while an alias points to it, and NotOwner.
        """
        return Registry(self._checked_store()).remove(ref, self.settings.owns_as)

    def own_model(self, name: str) -> str | None:
        """Take a model over, with its versions so far; return who owned it before, None for nobody.

        From then on only this owner (`IMAGEMILL_OWNER`) publishes its next version, moves its aliases and removes
        versions. Raises UnknownModel, and NotOwner for a model that ships.
        """
        return Registry(self._checked_store()).own(name, self.settings.owns_as)

    def workers(self) -> list[Worker]:
        """Return the workers and controllers that are alive."""
        return self.backend.ledger.workers()

    def fleet(self) -> Fleet:
        """Return one look at workers, queues and jobs that have not ended; raises RedisUnavailable."""
        return read_fleet(self.backend.ledger)

    def drain_workers(self, name: str = "", *, all_of: str = "") -> list[str]:
        """Ask the worker `name`, or all of a host or pool, to drain as on SIGTERM; return the names of those asked.

        A prefix that only one live worker has names it too. Raises InvalidInput if nobody or several are meant.
        """
        return drain.drain(self.backend.ledger, drain.find(self.workers(), name, all_of=all_of))

    # Single requests

    def serve(self, model: str, *, precision: Precision = "auto") -> ServedState:
        """Have workers keep a model loaded and answer single requests with it; return how that stands now.

        `model` is `name`, `name@version` or `name@alias`, as it stands now; a later version is served by another call.
        Raises UnknownModel, InvalidInput for a model that answers no single requests, and NotOwner.
        """
        need_address(self.settings)
        served = ServedModels(self._checked_store()).add(model, precision=precision, owner=self.settings.owns_as)
        announce(self.settings)
        (state,) = read_states(self.settings, [served])
        return state

    def unserve(self, model: str) -> list[str]:
        """Serve `name@version`, or every version of `name`, no longer; return what was. Raises NotServed, NotOwner."""
        gone = ServedModels(self._checked_store()).remove(model, self.settings.owns_as)
        announce(self.settings)
        return [served.ref for served in gone]

    def served(self) -> list[ServedState]:
        """Return the served models by name, and how each stands."""
        return read_states(self.settings, ServedModels(self._checked_store()).all())

    def classify_now(
        self,
        model: str,
        images: Sequence[bytes],
        *,
        keys: Sequence[str] | None = None,
        top_k: int = 5,
        embed: bool = False,
        deadline: float = DEADLINE_SECONDS,
    ) -> list[Row]:
        """Return a row for each of these image files, from a served model, within `deadline` seconds.

        The rows have the columns of a job's. Raises NotServed, RequestTooLarge, Overloaded, Expired and OnlineFailed.
        """
        online = self._online()
        return online.classify(model, images, keys=keys, top_k=top_k, embed=embed, deadline=deadline)

    def generate_now(
        self,
        model: str,
        *,
        classes: Sequence[str] = (),
        seed: int = 0,
        count: int = 1,
        size: int = 0,
        truncation: float | None = None,
        image_format: ImageFormat = "png",
        deadline: float = DEADLINE_SECONDS,
    ) -> list[Row]:
        """Return a row for each of up to 64 images from a served generator, with its file in `image`, as bytes.

        The files are those that `generate` writes with the same options, model and precision, in its order; the other
        columns are those of its index, `precision` and `device`. Raises as `classify_now` does.
        """
        return self._online().generate(
            model,
            classes=classes,
            seed=seed,
            count=count,
            size=size,
            truncation=truncation,
            image_format=image_format,
            deadline=deadline,
        )

    def _online(self) -> BlockingOnline:
        with self._lock:
            if self._asks is None:
                self._asks = BlockingOnline(self.settings, self.backend.store)
            return self._asks

    def _checked_store(self) -> ObjectStore:
        store = self.backend.store
        if not store.bucket_exists(store.bucket):
            raise InvalidSettings(
                f"There is no bucket {store.bucket!r} at {store.endpoint}; `imagemill up` creates it, or set "
                "IMAGEMILL_BUCKET to one that exists."
            )
        return store

    def _ready_store(self, keys: JobKeys) -> ObjectStore:
        """Return the store once Redis has answered too: a job needs both, so neither is found missing halfway."""
        store = self._checked_store()
        self.backend.ledger.exists(keys.id)
        return store

    def _in_bucket(self) -> list[str]:
        entries = self._checked_store().list(JOBS, folders=True)
        return [entry.key.removeprefix(JOBS).rstrip("/") for entry in entries if entry.key.endswith("/")]
