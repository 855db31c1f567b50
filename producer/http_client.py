"""The Python client over the HTTP API: the methods of `Client`, for a notebook without keys of Redis and the bucket.

What writes to the bucket for long is left out: `upload_to_watch`, which feeds a watch from a folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO, Unpack

from pydantic import TypeAdapter

from contract.backend.heartbeats import Worker
from contract.datasets.records import Version
from contract.errors import (
    ImagemillError,
    InvalidInput,
    InvalidSettings,
    Overloaded,
    RequestTooLarge,
    ServiceUnavailable,
)
from contract.fleet.snapshot import Fleet
from contract.jobs import lifecycle
from contract.jobs.options import (
    ClassifyKeywords,
    EvaluateKeywords,
    GenerateKeywords,
    SynthesizeKeywords,
    TrainKeywords,
    VerifyKeywords,
    WatchKeywords,
)
from contract.jobs.results import Row
from contract.jobs.retention import Found
from contract.jobs.reviews.agreement import ReviewSummary
from contract.jobs.schedules import Missed
from contract.jobs.status import Status
from contract.models.registry import Model, Registry, Scalar, Task
from contract.online.messages import DEADLINE_SECONDS, MOST_IMAGES
from contract.online.state import ServedState
from contract.records import ImageFormat, Precision, Priority
from contract.settings import load
from contract.watches.record import Watches
from contract.web.client import WebClient
from contract.web.webhooks.endpoints import ROTATION_SECONDS
from contract.web.webhooks.outbox import Told
from producer import models as own_models
from producer.datasets import DatasetSummary
from producer.http_api import OPEN, HttpApi
from producer.http_store import HttpStore
from producer.jobs import import_report, label_studio, watched_rows
from producer.jobs.import_report import ImportReport
from producer.jobs.schedules import Run, Scheduled
from producer.jobs.submission import OnProgress
from producer.jobs.watches import Watched
from producer.jobs.webhooks import Webhook
from producer.sources.read import Images
from producer.uploads.through_api import bring

if TYPE_CHECKING:
    from contract.data.dataset_stats import DatasetStats
    from producer.exports.images.export import OnImages
    from producer.exports.labels.export import Written

_PIECE_BYTES = 2**19
"""JSON of annotations in one request; the API takes a megabyte."""
_PLACES = ("source", "reconstruct", "away_from")
_AGAIN_SECONDS = 0.5
_PAGE = 200
"""Jobs on a page."""
_LATE_SECONDS = 30.0
"""For which an answer is waited for beyond the time that the request gave the server."""
_LOOK_SECONDS = 2.0
"""Between two looks for new rows of a watch, each of which takes some requests."""


class HttpClient:
    """A client of one HTTP API; `url` and `token` default to the settings, and those to the embedded stack.

    Methods take, return and raise what those of `Client` do; ServiceUnavailable too if the API does not answer, and
    TokenRefused. Local images are uploaded through the API.
    """

    def __init__(self, url: str = "", token: str = "", *, timeout: float = 90.0) -> None:
        """Raises InvalidSettings without an address or a token."""
        settings = load()
        url, token = url or settings.api_url, token or settings.api_token.get_secret_value()
        if not url or not token:
            raise InvalidSettings(
                "The HTTP API has no address or no token; set IMAGEMILL_API_URL and IMAGEMILL_API_TOKEN, or run "
                "`imagemill up`."
            )
        self._api = HttpApi(url, token, timeout=timeout)
        self._settings, self._patience = settings, settings.store_patience_seconds
        self._reads: HttpStore | None = None

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Submitting jobs

    def classify(
        self,
        source: str | Path,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[ClassifyKeywords],
    ) -> Status:
        """Label every image of `source`, as `Client.classify` does."""
        return self._submit("classify", {"source": source, **options}, job, progress)

    def train(
        self,
        family: str,
        source: str | Path | Sequence[str | Path],
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[TrainKeywords],
    ) -> Status:
        """Train a model of `family` on `source`, as `Client.train` does."""
        return self._submit("train", {"family": family, "source": source, **options}, job, progress)

    def evaluate(
        self,
        model: str,
        source: str | Path,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[EvaluateKeywords],
    ) -> Status:
        """Evaluate a model on `source`, as `Client.evaluate` does."""
        return self._submit("evaluate", {"model": model, "source": source, **options}, job, progress)

    def generate(
        self,
        model: str,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[GenerateKeywords],
    ) -> Status:
        """Generate images, as `Client.generate` does; `interpolate` takes `s3://` addresses only."""
        return self._submit("generate", {"model": model, **options}, job, progress)

    def synthesize(
        self,
        model: str,
        *,
        job: str | None = None,
        progress: OnProgress | None = None,
        **options: Unpack[SynthesizeKeywords],
    ) -> Status:
        """Generate images that a classifier accepts, as `Client.synthesize` does."""
        return self._submit("synthesize", {"model": model, **options}, job, progress)

    def verify(self, made: str, *, job: str | None = None, **options: Unpack[VerifyKeywords]) -> Status:
        """Generate images of a job again, and compare, as `Client.verify` does."""
        return self._submit("verify", {"made": made, **options}, job, None)

    # Following and steering jobs

    def status(self, job: str) -> Status:
        """Return how far a job is."""
        return self._api.one(Status, "GET", f"/v1/jobs/{job}")

    def jobs(self, *, limit: int | None = None, before: str = "") -> list[Status]:
        """Return jobs of the token's owner: those that have not ended, then the others by their ends, newest first.

        `before` is the last job of the page before, which has ended.
        """
        found: list[Status] = []
        place = {"before": before} if before else {"cursor": ""}
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self._api.json("GET", "/v1/jobs", params={"limit": size, **place})
            found += map(Status.model_validate, page["jobs"])
            if not page["cursor"]:
                break
            place = {"cursor": page["cursor"]}
        return found

    def remove_jobs(self, jobs: Sequence[str]) -> list[Found]:
        """Delete jobs that have ended, or none of them; return what that took."""
        body = {"jobs": list(jobs)}
        return [Found(**one) for one in self._api.json("POST", "/v1/jobs/remove", json=body, timeout=None)]

    def gc(self, *, dry_run: bool = False) -> Iterator[Found]:
        """Delete what nobody needs, with the scope `admin`; yield what it was. With `dry_run` nothing is deleted."""
        lines = self._api.objects("POST", "/v1/gc", params={"dry_run": dry_run}, timeout=None)
        return (Found(**one) for one in lines)

    def rebuild_index(self) -> None:
        """Build the index of jobs anew, with the scope `admin`."""
        self._api.send("POST", "/v1/rebuild-index", timeout=None)

    def rebuild(self, jobs: Sequence[str] | None = None) -> Iterator[Status]:
        """Rewrite the ledger entries of `jobs`, or of all jobs, with the scope `admin`; yield each status."""
        body = {"jobs": None if jobs is None else list(jobs)}
        lines = self._api.objects("POST", "/v1/rebuild", json=body, timeout=None)
        return (Status.model_validate(one) for one in lines)

    def follow(self, job: str, stop: threading.Event | None = None) -> Iterator[Status]:
        """Yield the status of a job whenever it has changed, until it has ended or `stop` is set.

        An API that is away is asked again; raises ServiceUnavailable after `store_patience_seconds` without it.
        """
        stop = stop or threading.Event()
        last, away = "", 0.0
        while not stop.is_set():
            try:
                for event in self._api.events(f"/v1/jobs/{job}/events", last):
                    away = 0.0
                    if event.kind == OPEN:
                        continue
                    last = event.id
                    yield Status.model_validate_json(event.data)
                    if event.kind == "end" or stop.is_set():
                        return
            except ServiceUnavailable:
                away = away or time.monotonic()
                if time.monotonic() - away > self._patience:
                    raise
            stop.wait(_AGAIN_SECONDS)

    def history(self, job: str) -> list[dict[str, Any]]:
        """Return the figures of each epoch of a training so far."""
        found: list[dict[str, Any]] = self._api.json("GET", f"/v1/jobs/{job}/history")
        return found

    def set_share(
        self,
        job: str,
        *,
        priority: Priority | None = None,
        weight: float | None = None,
        max_slots: int | None = None,
    ) -> Status:
        """Change which part of the slots a job gets from now on; None leaves a part as it is."""
        share = {"priority": priority, "weight": weight, "max_slots": max_slots}
        return self._api.one(Status, "PATCH", f"/v1/jobs/{job}", json=share)

    def cancel(self, job: str) -> Status:
        """Stop a job, keep its committed shards, and return its end."""
        return self._api.one(Status, "POST", f"/v1/jobs/{job}/cancel")

    def resume(self, job: str, progress: OnProgress | None = None) -> Status:
        """Continue a job that was canceled, failed or got stuck; nothing is uploaded, so `progress` is not called."""
        return self._api.one(Status, "POST", f"/v1/jobs/{job}/resume")

    def retry(self, job: str) -> Status:
        """Run only the failed images of an ended job again."""
        return self._api.one(Status, "POST", f"/v1/jobs/{job}/retry")

    def results(self, job: str) -> Iterator[Row]:
        """Yield the rows committed so far, failures included."""
        return self._api.table_rows(f"/v1/jobs/{job}/results")

    def errors(self, job: str) -> Iterator[Row]:
        """Yield the failed rows."""
        return self._api.table_rows(f"/v1/jobs/{job}/results", status="error")

    def reviewed(self, job: str) -> Iterator[Row]:
        """Yield the rows that somebody reviewed in the console, with the reviewed `label`."""
        return self._api.rows(f"/v1/jobs/{job}/results", status="reviewed")

    def reviews(self, job: str) -> ReviewSummary:
        """Return who reviewed a job, how far each two of them agree, and on which images they do not."""
        return self._api.one(ReviewSummary, "GET", f"/v1/jobs/{job}/reviews")

    def import_reviews(self, job: str, file: str | Path) -> ImportReport:
        """Import the annotations of a Label Studio export, as `Client.import_reviews` does."""
        tasks = label_studio.tasks_of(label_studio.read_file(Path(file)))
        place = f"/v1/jobs/{job}/reviews/label-studio"
        reports = [self._api.one(ImportReport, "POST", place, json=some) for some in _pieces(tasks)]
        return import_report.total(job, reports)

    def write_results(self, job: str, format: str, output: Path | TextIO, *, presign_hours: float = 0) -> Written:
        """Write the rows committed so far, as `Client.write_results` does."""
        from producer.exports.labels.export import export  # they load Arrow
        from producer.exports.labels.source import labels_of

        store = self._store()
        spec = lifecycle.read_classify(store, job)
        images = Images(store, self._settings.max_image_bytes, WebClient.of(self._settings))
        return export(labels_of(store, spec, images.read, presign_hours=presign_hours), format, output)

    def export(self, job: str, format: str, folder: str | Path, *, progress: OnImages | None = None) -> DatasetStats:
        """Write the accepted images of a job or dataset into a folder, as `Client.export` does."""
        from producer.exports.images.export import export  # it loads Arrow

        return export(self._store(), job, format, Path(folder), progress)

    def report(self, job: str, *, timeout: float = 60.0) -> str:
        """Return the page of a job as HTML."""
        ends = time.monotonic() + timeout
        while True:
            left = max(0.0, ends - time.monotonic())
            try:
                return self._api.send("GET", f"/v1/jobs/{job}/report", params={"timeout": min(left, 30.0)}).text
            except ServiceUnavailable:
                if left <= 30.0:
                    raise
                time.sleep(_AGAIN_SECONDS)

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
        """Submit a job at each tick of a cron line, as `Client.add_schedule` does."""
        job = {"command": command, **_given(arguments)}
        body = {"name": name, "job": job, "cron": cron, "timezone": timezone, "missed": missed}
        return self._api.one(Scheduled, "POST", "/v1/schedules", json=body)

    def schedules(self, *names: str) -> list[Scheduled]:
        """Return these schedules, or all by name."""
        if names:
            return [self._api.one(Scheduled, "GET", f"/v1/schedules/{name}") for name in names]
        return self._api.pages(Scheduled, "/v1/schedules")

    def pause_schedule(self, name: str) -> Scheduled:
        """Let ticks pass without a job until it is unpaused."""
        return self._api.one(Scheduled, "POST", f"/v1/schedules/{name}/pause")

    def unpause_schedule(self, name: str) -> Scheduled:
        """Submit jobs again from the next tick on."""
        return self._api.one(Scheduled, "POST", f"/v1/schedules/{name}/unpause")

    def run_schedule(self, name: str) -> Status:
        """Submit the job of a schedule now."""
        return self._api.one(Status, "POST", f"/v1/schedules/{name}/run")

    def remove_schedule(self, name: str) -> None:
        """Remove a schedule and its history; its jobs stay."""
        self._api.send("DELETE", f"/v1/schedules/{name}")

    def own_schedule(self, name: str) -> Scheduled:
        """Take a schedule over."""
        return self._api.one(Scheduled, "POST", f"/v1/schedules/{name}/own")

    def schedule_history(self, name: str, limit: int = 50) -> list[Run]:
        """Return the newest runs of a schedule with their jobs, newest first."""
        return self._api.many(Run, "GET", f"/v1/schedules/{name}/history", params={"limit": limit})

    # Watches

    def add_watch(self, name: str, source: str, **options: Unpack[WatchKeywords]) -> Watched:
        """Label what is under an `s3://` prefix and what comes there, as `Client.add_watch` does."""
        return self._api.one(Watched, "POST", "/v1/watches", json={"name": name, "source": source, **_given(options)})

    def watch(self, name: str) -> Watched:
        """Return a watch and how it stands."""
        return self._api.one(Watched, "GET", f"/v1/watches/{name}")

    def watches(self) -> list[Watched]:
        """Return every watch by name, and how each stands."""
        return self._api.pages(Watched, "/v1/watches")

    def pause_watch(self, name: str) -> Watched:
        """Plan nothing more until the watch is unpaused."""
        return self._api.one(Watched, "POST", f"/v1/watches/{name}/pause")

    def unpause_watch(self, name: str) -> Watched:
        """Go on where the watch was paused."""
        return self._api.one(Watched, "POST", f"/v1/watches/{name}/unpause")

    def remove_watch(self, name: str) -> None:
        """Remove a watch and what it has seen; its jobs and their rows stay."""
        self._api.send("DELETE", f"/v1/watches/{name}")

    def own_watch(self, name: str) -> Watched:
        """Take a watch over."""
        return self._api.one(Watched, "POST", f"/v1/watches/{name}/own")

    def replay_watch(self, name: str, *, begin: datetime, end: datetime | None = None, model: str) -> Status:
        """Label what a watch planned in a span of time with another model, as one job."""
        body = {"begin": begin.isoformat(), "end": end and end.isoformat(), "model": model}
        return self._api.one(Status, "POST", f"/v1/watches/{name}/replay", json=body)

    def watched_rows(
        self, name: str, *, since: datetime | None = None, follow: bool = False, stop: threading.Event | None = None
    ) -> Iterator[Row]:
        """Yield the rows of a watch, as `Client.watched_rows` does; with `follow`, looks for more every two seconds."""
        store = self._store()
        watch = Watches(store).get(name)
        return watched_rows.rows(store, watch, since=since, follow=follow, stop=stop, seconds=_LOOK_SECONDS)

    # Webhooks

    def add_webhook(self, url: str) -> Webhook:
        """Make a webhook of a URL. Other methods take its id."""
        return self._api.one(Webhook, "POST", "/v1/webhooks", json={"url": url})

    def webhooks(self) -> list[Webhook]:
        """Return every webhook and how it stands."""
        return self._api.pages(Webhook, "/v1/webhooks")

    def webhook(self, name: str) -> Webhook:
        """Return a webhook and how it stands."""
        return self._api.one(Webhook, "GET", f"/v1/webhooks/{name}")

    def webhook_messages(self, name: str, *, limit: int = 100, before: str = "") -> list[Told]:
        """Return messages to a webhook and where each stands, newest first, those behind the id `before`."""
        return self._api.many(Told, "GET", f"/v1/webhooks/{name}/messages", params={"limit": limit, "before": before})

    def webhook_secret(self, name: str) -> str:
        """Return the secret with which messages to a webhook are signed."""
        return str(self._api.json("GET", f"/v1/webhooks/{name}/secret")["secret"])

    def rotate_webhook(self, name: str, *, keep: float = ROTATION_SECONDS) -> str:
        """Return a new secret; messages carry a signature by the earlier one too for `keep` seconds."""
        return str(self._api.json("POST", f"/v1/webhooks/{name}/rotate", params={"keep": keep})["secret"])

    def resend_webhook(self, name: str, messages: Sequence[str] = ()) -> list[Told]:
        """Send messages again, with the same ids, or those that were given up."""
        return self._api.many(Told, "POST", f"/v1/webhooks/{name}/resend", json={"messages": list(messages)})

    def enable_webhook(self, name: str) -> Webhook:
        """Send messages again to a webhook that answered 410."""
        return self._api.one(Webhook, "POST", f"/v1/webhooks/{name}/enable")

    def remove_webhook(self, name: str) -> None:
        """Remove a webhook, its secret and its messages, those that wait too."""
        self._api.send("DELETE", f"/v1/webhooks/{name}")

    # Datasets, models and workers

    def datasets(self, *, limit: int = 100, after: str = "") -> list[DatasetSummary]:
        """Return datasets in the order of their names, those behind `after`."""
        return self._api.many(DatasetSummary, "GET", "/v1/datasets", params={"limit": limit, "after": after})

    def dataset(self, ref: str) -> DatasetSummary:
        """Return a dataset with its counts."""
        return self._api.one(DatasetSummary, "GET", f"/v1/datasets/{ref}")

    def dataset_versions(self, name: str, *, limit: int = 100, before: int = 0) -> list[Version]:
        """Return versions of a dataset, newest first."""
        params = {"limit": limit, "before": before}
        return self._api.many(Version, "GET", f"/v1/datasets/{name}/versions", params=params)

    def remove_dataset(self, name: str) -> int:
        """Remove a dataset; return how many jobs hold its images, which stay."""
        return int(self._api.json("DELETE", f"/v1/datasets/{name}")["jobs"])

    def own_dataset(self, name: str) -> DatasetSummary:
        """Take a dataset over."""
        return self._api.one(DatasetSummary, "POST", f"/v1/datasets/{name}/own")

    def models(self) -> list[Model]:
        """Return every model, by name, newest version first."""
        return self._api.pages(Model, "/v1/models")

    def model(self, ref: str, *, tasks: Sequence[Task] = ()) -> Model:
        """Return a model; raises InvalidInput for one that does none of `tasks`."""
        found = self._api.one(Model, "GET", f"/v1/models/{ref}")
        if tasks and found.task not in tasks:
            raise InvalidInput(f"{found.ref} does {found.task}; name a model that does {' or '.join(tasks)}.")
        return found

    def aliases(self, name: str) -> dict[str, int]:
        """Return the aliases of a model with the version of each."""
        found: dict[str, int] = self._api.json("GET", f"/v1/models/{name}/aliases")
        return found

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
        """Publish a `.pt2` or `.safetensors` file as the next version of `name`, as `Client.push_model` does."""
        file = Path(path)
        with file.open("rb") as data:
            sha256 = hashlib.file_digest(data, "sha256").hexdigest()
            upload = self._api.json("POST", "/v1/uploads", json={"files": [f"weights{file.suffix.lower()}"]})
            data.seek(0)
            self._api.upload(upload["files"][0]["url"], file.name, data)
        body = {
            "name": name,
            "upload": upload["source"],
            "sha256": sha256,
            "labels": list(labels),
            "size": size,
            "mean": mean,
            "std": std,
            "crop": crop,
            "interpolation": interpolation,
            "channels": channels,
            "family": family,
            "config": dict(config or {}),
            "license": license,
            "source": source,
        }
        ends = time.monotonic() + timeout
        try:
            while True:
                left = max(_AGAIN_SECONDS, ends - time.monotonic())
                try:
                    return self._api.one(
                        Model, "POST", "/v1/models", json={**body, "timeout": left}, timeout=left + _LATE_SECONDS
                    )
                except Overloaded as busy:  # with the models of others, and the file is there already
                    if time.monotonic() + busy.retry_after >= ends:
                        raise
                    time.sleep(busy.retry_after)
        finally:
            with suppress(ImagemillError):  # else it is deleted in a week
                self._api.send("DELETE", f"/v1/uploads/{upload['id']}")

    def pull_model(self, ref: str, into: str | Path) -> list[Path]:
        """Write the record and the files of a model into a folder, verified by their sha256; return their paths."""
        registry = Registry(self._store())
        return own_models.pull(registry, registry.get(ref), Path(into))

    def set_alias(self, ref: str, alias: str) -> Model:
        """Point `name@alias` to the version that `ref` is now."""
        found = self.model(ref)
        body = {"version": found.version}
        return self._api.one(Model, "PUT", f"/v1/models/{found.name}/aliases/{alias}", json=body)

    def remove_alias(self, ref: str) -> None:
        """Remove the alias `name@alias`."""
        name, _, alias = ref.partition("@")
        self._api.send("DELETE", f"/v1/models/{name}/aliases/{alias}")

    def remove_model(self, ref: str) -> Model:
        """Remove the version `name@version`, and return it."""
        found = self.model(ref)
        self._api.send("DELETE", f"/v1/models/{ref}")
        return found

    def own_model(self, name: str) -> str | None:
        """Take a model over, with the scope `admin`; return who owned it before."""
        before: str | None = self._api.json("POST", f"/v1/models/{name}/own")["before"]
        return before

    def workers(self) -> list[Worker]:
        """Return the workers and controllers that are alive, with the scope `admin`."""
        return [Worker(name=one["name"], fields=one["fields"]) for one in self._api.json("GET", "/v1/workers")]

    def fleet(self) -> Fleet:
        """Return one look at workers, queues and jobs that have not ended, with the scope `admin`."""
        return self._api.parsed(TypeAdapter(Fleet), "GET", "/v1/fleet")

    def drain_workers(self, name: str = "", *, all_of: str = "") -> list[str]:
        """Ask workers to drain, with the scope `admin`; return the names of those asked."""
        found: list[str] = self._api.json("POST", "/v1/workers/drain", json={"worker": name, "all_of": all_of})
        return found

    # Single requests

    def serve(self, model: str, *, precision: Precision = "auto") -> ServedState:
        """Have workers keep a model loaded and answer single requests with it."""
        return self._api.one(ServedState, "POST", "/v1/served", json={"model": model, "precision": precision})

    def unserve(self, model: str) -> list[str]:
        """Serve `name@version`, or every version of `name`, no longer; return what was."""
        found: list[str] = self._api.json("DELETE", f"/v1/served/{model}")
        return found

    def served(self) -> list[ServedState]:
        """Return the served models by name, and how each stands."""
        return self._api.many(ServedState, "GET", "/v1/served")

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

        Scores and embeddings have six digits behind the point.
        """
        names = [str(n) for n in range(len(images))] if keys is None else [key[:1024] for key in keys]
        if not images:
            raise RequestTooLarge(f"A request has 1 to {MOST_IMAGES} images; this one has none.")
        if len(names) != len(images):
            raise InvalidInput(f"There are {len(names)} names for {len(images)} images; name each.")
        # The name of a part cannot hold every key, so each image goes by its place.
        files = [("image", (str(n), image)) for n, image in enumerate(images)]
        params = {"top_k": top_k, "embed": embed, "deadline": deadline}
        rows = self._api.json("POST", f"/v1/models/{model}/classify", params=params, files=files)["rows"]
        return [{**row, "key": name} for row, name in zip(rows, names, strict=True)]

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
        """Return a row for each image from a served generator, with its file in `image`, as `Client.generate_now`."""
        body = {
            "classes": list(classes),
            "seed": seed,
            "count": count,
            "size": size,
            "truncation": truncation,
            "image_format": image_format,
            "deadline": deadline,
        }
        accept = {"Accept": "application/json"}
        found = self._api.json("POST", f"/v1/models/{model}/generate", json=body, headers=accept)
        return [{**row, "image": base64.b64decode(row["image"])} for row in found["images"]]

    def _store(self) -> HttpStore:
        """Return the bucket, as this token may read it."""
        if self._reads is None:
            self._reads = HttpStore(self._api)
        return self._reads

    def _submit(self, command: str, options: Mapping[str, Any], job: str | None, progress: OnProgress | None) -> Status:
        given = _given(options)
        for place in _PLACES:
            if isinstance(given.get(place), list | tuple):
                given[place] = [bring(self._api, str(source), job, progress) for source in given[place]]
            elif place in given:
                given[place] = bring(self._api, str(given[place]), job, progress)
        return self._api.one(Status, "POST", "/v1/jobs", json={"command": command, "job": job, **given})


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON has them, without those left at their default."""
    found = {name: value for name, value in options.items() if value is not None and value != ()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def _pieces(tasks: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield tasks in lists whose JSON fits into a request."""
    piece: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        more = len(json.dumps(task))
        if piece and size + more > _PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(task)
        size += more
    if piece:
        yield piece
