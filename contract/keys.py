"""Names that producer and worker share: Redis keys, object keys, queues and tasks.

Key stems contain no dots, so a shard's manifest, output and commit differ by suffix alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

QUEUE_CONTROL = "control"
QUEUE_CLASSIFY = "classify"
QUEUE_TRAIN = "train"
QUEUE_GENERATE = "generate"
QUEUE_CHECK = "check"
"""Checks of pushed models. Somebody waits for each, and on another queue would wait behind all shards of a job."""
WORKER_QUEUES = (QUEUE_CLASSIFY, QUEUE_GENERATE, QUEUE_TRAIN, QUEUE_CHECK)
"""What a worker consumes by default; Celery takes from each in turn."""
QUEUES = (QUEUE_CONTROL, *WORKER_QUEUES)

TASK_PLAN = "imagemill.plan"
TASK_FINALIZE = "imagemill.finalize"
TASK_TICK = "imagemill.tick"
TASK_RUN = "imagemill.run"
"""A ticket: whoever gets it asks the ledger for a shard of any job of its queue (`contract.backend.dispatch`)."""
TASK_FINISH = "imagemill.finish"
"""Finish a whole job on a worker: choose images and end it, or write its page."""
TASK_CHECK = "imagemill.check"

JOBS = "jobs/"
ACTIVE = "active/"
MODELS = "models/"
SCHEDULES = "schedules/"
WATCHES = "watches/"
DATASETS = "datasets/"
SERVED = "served/"
TABLES = "tables/"
"""The rows of each watch as one partitioned table, for other tools."""
FEEDS = "feeds/"
"""Images that producers upload for watches which follow no other prefix; any watch may follow them."""
INDEX = "index/"
TOKENS = "tokens/"
"""Who may use the HTTP API: the hash of each token."""
UPLOADS = "uploads/"
"""What clients of the HTTP API put here with presigned addresses, for jobs to read."""
WEBHOOKS = "webhooks/"
"""Who is told of the ends of jobs, and the messages to them (`contract.web.webhooks`)."""

PROBES = "probes/"
RESERVED = (
    JOBS,
    ACTIVE,
    MODELS,
    SCHEDULES,
    WATCHES,
    DATASETS,
    TABLES,
    SERVED,
    INDEX,
    TOKENS,
    UPLOADS,
    WEBHOOKS,
    PROBES,
    "inputs/",
)
"""Prefixes of the own bucket that no job may write its results to."""

MAX_OPEN_SHARDS = 100_000
"""The most shards of a plan that is open: the halves of its bisected shards are numbered from here."""

_TOKEN = re.compile(r"^tokens/([0-9a-f]{12})\.json$")
_WEBHOOK = re.compile(r"^webhooks/endpoints/(wh_[0-9a-f]{20})\.json$")
_WEBHOOK_MESSAGE = re.compile(r"^webhooks/[a-z]+/(wh_[0-9a-f]{20})/(\d{13}-[0-9a-f]{24})\.json$")
_WEBHOOK_NOTE = re.compile(r"^webhooks/due/(job|tick)/([a-z0-9-]{1,63})/([a-z0-9-]+)$")
_TICK = re.compile(r"/ticks/(\d{8}t\d{4})\.json$")
_WATCH_STATE = re.compile(r"^watches/([a-z0-9-]+)/(\d{8}t\d{6}(?:\d{3})?)/$")
_THEN = re.compile(r"/then/(\d{6,})\.(json|begun)$")
_ARCHIVE = re.compile(r"/archived/(\d{6,})\.json$")
_SEGMENT = re.compile(r"/segments/(\d{6,})\.json$")
_SEGMENT_JOB = re.compile(r"([a-z0-9-]+)-(\d{8}t\d{6}(?:\d{3})?)-(\d{6,})")
_VERSION = re.compile(r"/versions/(\d{6})\.json$")
_RUN = re.compile(r"/runs/(\d+)-(start|end)\.json$")
_REVIEW = re.compile(r"/reviews/([0-9a-f]{24}|many)/(\d{13}-[0-9a-f]{8})(-undone)?\.json$")
_SERVED = re.compile(r"^served/([a-z0-9][a-z0-9-]{0,62})/(\d{1,9})\.json$")
_CONTENT = re.compile(r"-[0-9a-f]{16}\.[a-z]+$")
_SHARD = re.compile(r"shard-(\d+)(?:-r(\d+))?\.[a-z]+$")


@dataclass(frozen=True)
class JobKeys:
    """Object keys of one job. `output` is the prefix of its results, `jobs/<id>/out/` unless told."""

    id: str

    @property
    def root(self) -> str:
        return f"{JOBS}{self.id}/"

    @property
    def spec(self) -> str:
        """The spec, and when it was submitted; never changed."""
        return f"{self.root}spec.json"

    @property
    def numerics(self) -> str:
        """Kind of device and precision of every shard; written once, by the first shard that needs it."""
        return f"{self.root}numerics.json"

    @property
    def sizes(self) -> str:
        """How large the shards of a local folder become, for `--shard-size auto`; written once, before the first."""
        return f"{self.root}sizes.json"

    @property
    def share(self) -> str:
        """Priority, weight and slots that `imagemill jobs set` gave the job since it was submitted."""
        return f"{self.root}share.json"

    @property
    def plan_prefix(self) -> str:
        return f"{self.root}plan/"

    @property
    def plan(self) -> str:
        """Number of shards, items and skipped files; written once every shard is planned."""
        return f"{self.plan_prefix}_PLAN.json"

    @property
    def review_prefix(self) -> str:
        """Prefix of what people said of the job's labels."""
        return f"{self.root}reviews/"

    def review(self, image: str, name: str, *, undone: bool = False) -> str:
        """What one person said of one image, or of a group where `image` is `many`, or that it no longer stands; both
        are written if absent."""
        return f"{self.review_prefix}{image}/{name}{'-undone' if undone else ''}.json"

    def reviewed(self, digest: str) -> str:
        """A set of reviewed labels that jobs learn from, named by its hash; a JSON object a line, written if absent."""
        return f"{self.reviewed_prefix}{digest}.jsonl"

    @property
    def reviewed_prefix(self) -> str:
        """Prefix of the sets of reviewed labels."""
        return f"{self.root}reviewed/"

    def manifest(self, shard: int) -> str:
        """The items of a shard, one JSON object per line: key, address, place in a tar, frames of a sequence. Empty
        behind the last shard that a controller planned."""
        return f"{self.plan_prefix}shard-{shard:06d}.jsonl"

    @property
    def planning(self) -> str:
        """How often a planner of a run died or was ended over the source, and why the last one was."""
        return f"{self.root}planning.json"

    @property
    def candidate_plan(self) -> str:
        """Which classes and indices each shard of a generating job makes, a line a shard."""
        return f"{self.plan_prefix}portions.jsonl"

    @property
    def candidate_prefix(self) -> str:
        """Candidates of a synthesis, an index and a tar a shard; deleted once it has succeeded."""
        return f"{self.root}candidates/"

    @property
    def reference(self) -> str:
        """Features of the training images given by `--away-from`."""
        return f"{self.candidate_prefix}reference.safetensors"

    @property
    def input_prefix(self) -> str:
        """Uploads of the producer: packed shards, a manifest, or tars under their own names."""
        return f"{self.root}in/"

    def tar(self, shard: int) -> str:
        """Images of a local folder, packed by the producer."""
        return f"{self.input_prefix}shard-{shard:06d}.tar"

    def tar_manifest(self, number: int) -> str:
        """Manifest of such a tar, with labels, for a training or an evaluation."""
        return f"{self.input_prefix}shard-{number:06d}.jsonl"

    def source(self, suffix: str) -> str:
        """A manifest that the producer uploaded, with its own suffix."""
        return f"{self.input_prefix}source{suffix}"

    @property
    def commit_prefix(self) -> str:
        return f"{self.root}commit/"

    def commit(self, shard: int, retry: int = 0) -> str:
        """The commit of a shard, written last: counts, hash of its rows, worker, runtime, seconds."""
        return f"{self.commit_prefix}{shard_stem(shard, retry)}.json"

    @property
    def selected_prefix(self) -> str:
        return f"{self.root}selected/"

    def selected(self, shard: int) -> str:
        """The commit of what a synthesis selected from a shard of candidates: counts, address and hash of its index."""
        return f"{self.selected_prefix}{shard_stem(shard)}.json"

    @property
    def attempt_prefix(self) -> str:
        """What an attempt at an evaluation made; the finalizer copies what the commit names to the output prefix."""
        return f"{self.root}attempts/"

    @property
    def finishing(self) -> str:
        """How often ending a run that makes images raised an unforeseen error, and in which processes."""
        return f"{self.attempt_prefix}finish.json"

    @property
    def lost_prefix(self) -> str:
        return f"{self.root}lost/"

    def lost(self, shard: int, retry: int = 0) -> str:
        """A commit whose outputs were missing at the end, so that the shard ran once more."""
        return f"{self.lost_prefix}{shard_stem(shard, retry)}.json"

    @property
    def report(self) -> str:
        """The page of a job, a single HTML file."""
        return f"{self.root}out/report.html"

    @property
    def neighbours(self) -> str:
        """How the nearest images of each labelled image are labelled, in a job with embeddings; Parquet, made when
        first asked for."""
        return f"{self.root}neighbours.parquet"

    @property
    def training_prefix(self) -> str:
        """Checkpoints, history and pictures of a training."""
        return f"{self.root}train/"

    @property
    def checkpoint_prefix(self) -> str:
        return f"{self.training_prefix}checkpoint-"

    def checkpoint(self, images: int) -> str:
        """Everything a training needs to continue; the last two are kept."""
        return f"{self.checkpoint_prefix}{images:012d}.safetensors"

    @property
    def history(self) -> str:
        """Figures of each epoch so far, as a JSON list."""
        return f"{self.training_prefix}history.json"

    def picture(self, epoch: int) -> str:
        """Picture of an epoch: a confusion matrix or samples."""
        return f"{self.training_prefix}epoch-{epoch:04d}.png"

    def retry(self, number: int) -> str:
        """Which shards a `retry` ran again, as versions before runs recorded it."""
        return f"{self.root}retry/retry-{number:03d}.json"

    @property
    def retry_prefix(self) -> str:
        return f"{self.root}retry/"

    @property
    def end(self) -> str:
        """The final status of the first run, however it ended; absent until then, and never changed."""
        return f"{self.root}end.json"

    @property
    def run_prefix(self) -> str:
        return f"{self.root}runs/"

    def run_start(self, run: int) -> str:
        """Opens a later run of the job, after `resume` or `retry`: when, and which shards a retry runs again."""
        return f"{self.run_prefix}{run:04d}-start.json"

    def run_end(self, run: int) -> str:
        """The final status of a later run."""
        return self.end if run == 0 else f"{self.run_prefix}{run:04d}-end.json"

    @property
    def success(self) -> str:
        """Empty; present if the job succeeded."""
        return f"{self.root}_SUCCESS"

    @property
    def active(self) -> str:
        """Empty; present while the job has not ended, so that one listing finds all unfinished jobs."""
        return f"{ACTIVE}{self.id}"


OUTPUTS = {
    "shard-000042.parquet": "Rows of a shard: labels.",
    "shard-000042-r1.parquet": "Rows of a shard after the first `retry`, in place of the earlier ones.",
    "shard-000042-<digest>.parquet": "Index of a shard of generated images. Its commit names it; the digest is that of "
    "the content, so no attempt overwrites another's bytes.",
    "shard-000042-<digest>.tar": "The images of that index, each with a `.json`.",
    "labels.csv": "Number of images per label.",
    "summary.json": "Counts, model, source and times.",
    "evaluation.json": "Figures of an evaluation.",
    "README.md": "Dataset card of generated images.",
    "report.html": "Page of the job; always under `jobs/<id>/out/`. A classify job's is made when first asked for.",
    "_SUCCESS": "Empty; written last, for tools that wait for it.",
}
"""What a job writes below its output prefix; the reference prints it."""


INDEX_STATE = f"{INDEX}state.json"
"""How far the index of ended jobs is built, for jobs that ended before there was one."""
ENDED = f"{INDEX}ended/"
"""An empty object for each ended job. The names sort by the time of the end, newest first."""
EXPIRES = f"{INDEX}expires/"
"""An empty object for each ended job with a retention of its own. The names sort by when it is over."""
USES = f"{INDEX}uses/"
"""An empty object for each job whose images lie in another job: `uses/OTHER/JOB`."""
DELETING = f"{INDEX}deleting/"
"""A job that is being deleted: what is left to do for it. Written first, deleted last."""
_LATEST = 10**13 - 1
"""Milliseconds; the names count down from here, in the year 2286."""
_ENDED = re.compile(r"^index/ended/(\d{13})-([a-z0-9-]+)\.(\d+)(\.own)?$")
_EXPIRES = re.compile(r"^index/expires/(\d{13})-([a-z0-9-]+)$")


def ended_entry(ended_ms: int, id: str, run: int, *, own: bool = False) -> str:
    """The entry of a run that ended so many milliseconds after the epoch; `own` if it has a retention of its own."""
    return f"{ENDED}{_LATEST - ended_ms:013d}-{id}.{run}{'.own' if own else ''}"


def ended_before(ended_ms: int) -> str:
    """A key behind the entries of all jobs that ended at that time or later."""
    return f"{ENDED}{_LATEST - ended_ms:013d}-~"


def parse_ended(key: str) -> tuple[str, int, bool] | None:
    """Return the job and the run of an entry, and whether the job has a retention of its own."""
    match = _ENDED.match(key)
    return (match[2], int(match[3]), match[4] is not None) if match else None


def expires_entry(due_ms: int, id: str) -> str:
    """An empty object for an ended job with a retention of its own, named by when that is over, in milliseconds."""
    return f"{EXPIRES}{due_ms:013d}-{id}"


def parse_expires(key: str) -> tuple[int, str] | None:
    """Return when a job's retention is over, in milliseconds, and its id."""
    match = _EXPIRES.match(key)
    return (int(match[1]), match[2]) if match else None


def uses_prefix(id: str) -> str:
    return f"{USES}{id}/"


def version_entry(job: str, dataset: str, number: int) -> str:
    """An empty object for a job that makes a version of a dataset, which keeps it once the version is there."""
    return f"{uses_prefix(job)}{dataset}@{number}"


def uses_entry(of: str, by: str) -> str:
    """An empty object for a job whose images lie in another one, which is therefore kept."""
    return f"{uses_prefix(of)}{by}"


def deleting(id: str) -> str:
    """What is left to do for a job that is being deleted; written first, deleted last."""
    return f"{DELETING}{id}"


def shard_stem(shard: int, retry: int = 0) -> str:
    """`shard-000042`, or `shard-000042-r1` for its rows after the first retry."""
    return f"shard-{shard:06d}" + (f"-r{retry}" if retry else "")


def content_name(stem: str, digest: str, suffix: str) -> str:
    """Name an object by its content, so that attempts that differ never write over each other.

    `digest` is a SHA-256 in hex, of which 64 bits are kept: only attempts at one shard share a stem.
    """
    return f"{stem}-{digest[:16]}{suffix}"


def named_by_content(key: str) -> bool:
    """Return whether `content_name` made the name of this object."""
    return _CONTENT.search(key) is not None


def parse_shard(key: str) -> tuple[int, int] | None:
    """Return the shard and retry number in an object key, or None."""
    match = _SHARD.search(key)
    return (int(match[1]), int(match[2] or 0)) if match else None


def parse_run(key: str) -> tuple[int, str] | None:
    """Return the number of a later run and what the object tells of it, `start` or `end`; None for another key."""
    match = _RUN.search(key)
    return (int(match[1]), match[2]) if match else None


def parse_review(key: str) -> tuple[str, str, bool] | None:
    """Return the image and the name of a verdict, and whether the object takes it back; None for another key."""
    match = _REVIEW.search(key)
    return (match[1], match[2], bool(match[3])) if match else None


def child_shards(shard: int, planned: int) -> tuple[int, int]:
    """Return the numbers of the two halves of a bisected shard.

    They form a heap above the `planned` shards, so they are unique, and the same whichever worker splits the shard.
    """
    return planned + 2 * shard, planned + 2 * shard + 1


def model_record(name: str, version: int) -> str:
    """Family, labels, preprocessing and hashes of a published model; written after its files."""
    return f"{MODELS}{name}/{version}/model.json"


def model_file(name: str, version: int, file: str) -> str:
    """A file of a model: weights (`weights.safetensors`, or `weights.pt2` if pushed), curves, card, figures. The names
    of those that a training publishes hold a digest of their content."""
    return f"{MODELS}{name}/{version}/{file}"


def model_owner(name: str) -> str:
    """Who may publish the next version of a model; written with its first."""
    return f"{MODELS}{name}/owner.json"


def model_claim(name: str, version: int) -> str:
    """Names who may publish the version; kept after removal, so that no number is reused."""
    return f"{MODELS}{name}/{version}/claim"


def model_draft(name: str, version: int) -> str:
    """Record of a pushed model until a worker has run it."""
    return f"{MODELS}{name}/{version}/draft.json"


def model_verdict(name: str, version: int) -> str:
    """The verdict of that worker."""
    return f"{MODELS}{name}/{version}/check.json"


def model_alias(name: str, alias: str) -> str:
    """The version that an alias stands for."""
    return f"{MODELS}{name}/aliases/{alias}"


def probe_object(name: str) -> str:
    """Written and read by `imagemill doctor` to see whether the store works."""
    return f"{PROBES}{name}"


def token_record(id: str) -> str:
    """A token of the HTTP API: its hash, owner, scopes and rate; never the token itself."""
    return f"{TOKENS}{id}.json"


def parse_token(key: str) -> str | None:
    """The id of the token whose record this is, or None."""
    match = _TOKEN.match(key)
    return match[1] if match else None


def uploads_of(owner: str) -> str:
    """Prefix of the uploads of one owner, who is named by a digest: an owner's name may hold anything."""
    return f"{UPLOADS}{hashlib.sha256(owner.encode()).hexdigest()[:16]}/"


def upload_prefix(owner: str, id: str) -> str:
    """Prefix of the files of one upload."""
    return f"{uploads_of(owner)}{id}/"


UPLOADS_BEGUN = f"{INDEX}uploads/begun/"
UPLOADS_CLAIMED = f"{INDEX}uploads/claimed/"


def upload_begun(place: str) -> str:
    """An empty object: addresses for files of an upload were handed out, and nobody has used it yet."""
    return f"{UPLOADS_BEGUN}{place}"


def upload_claim(place: str) -> str:
    """`used`, or `deleting` and by whom: what is to become of an upload; written if absent, so one of them wins."""
    return f"{UPLOADS_CLAIMED}{place}"


WEBHOOK_OF_ALL = f"{WEBHOOKS}all"
"""The id of the webhook that is told of all jobs, `IMAGEMILL_WEBHOOK_URL`; absent without one."""
WEBHOOK_RECORDS = f"{WEBHOOKS}endpoints/"
WEBHOOK_NOTES = f"{WEBHOOKS}due/"
"""Empty objects: an end of a job or a tick of a schedule that webhooks are not told of yet."""
WEBHOOK_MESSAGES = f"{WEBHOOKS}messages/"
WEBHOOK_WAITING = f"{WEBHOOKS}waiting/"
WEBHOOK_OUTCOMES = f"{WEBHOOKS}outcomes/"


def webhook_record(id: str) -> str:
    """A webhook: its URL and its owner; never changed."""
    return f"{WEBHOOK_RECORDS}{id}.json"


def parse_webhook(key: str) -> str | None:
    """The webhook whose record this is, or None."""
    match = _WEBHOOK.match(key)
    return match[1] if match else None


def webhook_secret(id: str) -> str:
    """The secrets that messages to a webhook are signed with: the current one, and earlier ones for a while."""
    return f"{WEBHOOKS}secrets/{id}.json"


def webhook_disabled(id: str) -> str:
    """Says that a webhook answered 410 and is told nothing until `imagemill webhooks enable`."""
    return f"{WEBHOOKS}disabled/{id}.json"


def webhook_end_note(id: str, run: int) -> str:
    """An empty object: a run of a job has ended, and webhooks are to be told."""
    return f"{WEBHOOK_NOTES}job/{id}/{run:04d}"


def webhook_tick_note(name: str, stamp: str) -> str:
    """An empty object: a tick of a schedule was decided, and webhooks are to be told."""
    return f"{WEBHOOK_NOTES}tick/{name}/{stamp}"


def parse_webhook_note(key: str) -> tuple[str, str, str] | None:
    """What a note is about, `job` or `tick`, with the job and its run, or the schedule and the stamp; or None."""
    match = _WEBHOOK_NOTE.match(key)
    return (match[1], match[2], match[3]) if match else None


def webhook_message(endpoint: str, message: str) -> str:
    """A message to a webhook, with its body; written if absent, never changed. Names sort newest first."""
    return f"{WEBHOOK_MESSAGES}{endpoint}/{message}.json"


def webhook_waiting(endpoint: str, message: str) -> str:
    """A message that is not delivered: the attempts so far, and when the next one is due."""
    return f"{WEBHOOK_WAITING}{endpoint}/{message}.json"


def webhook_outcome(endpoint: str, message: str) -> str:
    """What became of a message: delivered, or given up."""
    return f"{WEBHOOK_OUTCOMES}{endpoint}/{message}.json"


def parse_webhook_message(key: str) -> tuple[str, str] | None:
    """The webhook and the name of the message that an object is about, or None."""
    match = _WEBHOOK_MESSAGE.match(key)
    return (match[1], match[2]) if match else None


def message_name(at_ms: int, digest: str) -> str:
    """The name of a message about what happened so many milliseconds after the epoch."""
    return f"{_LATEST - at_ms:013d}-{digest[:24]}"


def message_ms(name: str) -> int:
    """Return when the event of a message happened, in milliseconds since the epoch."""
    return _LATEST - int(name[:13])


def message_after(at_ms: int) -> str:
    """A name that sorts before those of the messages about what happened before that time, and behind all others."""
    return f"{_LATEST - at_ms:013d}-~"


def served_record(name: str, version: int) -> str:
    """Says that a version of a model answers single requests, and with which precision."""
    return f"{SERVED}{name}/{version}.json"


def parse_served(key: str) -> tuple[str, int] | None:
    """The name and version of the served model whose record this is, or None."""
    match = _SERVED.match(key)
    return (match[1], int(match[2])) if match else None


def schedule_record(name: str) -> str:
    """A schedule: cron line, time zone, and the job's spec with models as typed."""
    return f"{SCHEDULES}{name}.json"


def parse_schedule(key: str) -> str | None:
    """The schedule whose record this is, or None."""
    name = key.removeprefix(SCHEDULES)
    return name.removesuffix(".json") if name.endswith(".json") and "/" not in name else None


def schedule_ticks(name: str) -> str:
    """Prefix of what became of each tick."""
    return f"{SCHEDULES}{name}/ticks/"


def schedule_tick(name: str, stamp: str) -> str:
    """Decision about a tick, with the spec of its job; the last 1,000 are kept."""
    return f"{schedule_ticks(name)}{stamp}.json"


def dataset_record(name: str) -> str:
    """The record of a dataset: its owner, and when it was created."""
    return f"{DATASETS}{name}/dataset.json"


def parse_dataset(key: str) -> str | None:
    """The dataset whose folder this is, or None."""
    name = key.removeprefix(DATASETS).removesuffix("/")
    return name if key.endswith("/") and name and "/" not in name else None


def dataset_versions(name: str) -> str:
    """Prefix of the versions of a dataset."""
    return f"{DATASETS}{name}/versions/"


def dataset_version(name: str, number: int) -> str:
    """What one job added to a dataset: counts, and the objects that hold the images; written last, if absent."""
    return f"{dataset_versions(name)}{number:06d}.json"


def parse_dataset_version(key: str) -> int | None:
    """The number of the version that an object key names, or None."""
    match = _VERSION.search(key)
    return int(match[1]) if match else None


def dataset_claims(name: str) -> str:
    """Prefix of the claims to versions of a dataset."""
    return f"{DATASETS}{name}/claims/"


def dataset_claim(name: str, number: int) -> str:
    """The job that is making a version of a dataset."""
    return f"{dataset_claims(name)}{number:06d}.json"


def dataset_features(name: str, gate_sha256: str, job: str) -> str:
    """Features of the images that a job added to a dataset, by the gate with these weights: for the duplicate check of
    later versions."""
    return f"{DATASETS}{name}/features/{gate_sha256[:16]}/{job}.safetensors"


def parse_tick(key: str) -> str | None:
    """The stamp of the tick that an object key names; None for a run by hand."""
    match = _TICK.search(key)
    return match[1] if match else None


def watch_record(name: str) -> str:
    """A watch: the prefix that it follows, and what its segments' jobs are made of."""
    return f"{WATCHES}{name}.json"


def parse_watch(key: str) -> str | None:
    """The watch whose record this is, or None."""
    name = key.removeprefix(WATCHES)
    return name.removesuffix(".json") if name.endswith(".json") and "/" not in name else None


def watch_prefix(name: str) -> str:
    """Prefix of all that watches of this name have written."""
    return f"{WATCHES}{name}/"


def watch_state(name: str, stamp: str) -> str:
    """Prefix of what one watch writes; `stamp` is when it was added."""
    return f"{watch_prefix(name)}{stamp}/"


def parse_watch_state(key: str) -> tuple[str, str] | None:
    """The name and the stamp of the watch whose prefix this is, or None."""
    match = _WATCH_STATE.match(key)
    return (match[1], match[2]) if match else None


def watch_feed(name: str) -> str:
    """Prefix of what is uploaded for a watch that follows no other prefix."""
    return f"{FEEDS}{name}/"


REJECTED_EVENTS = f"{WATCHES}rejected/"
"""Events that could not be understood, and why; the newest are kept."""


def rejected_event(stamp: str, digest: str) -> str:
    """An event that could not be understood; `stamp` is when it came, UTC."""
    return f"{REJECTED_EVENTS}{stamp}-{digest[:16]}.json"


def watch_segments(root: str) -> str:
    """Prefix of the segments of a watch; `root` is its `watch_state`."""
    return f"{root}segments/"


def watch_segment(root: str, number: int) -> str:
    """A segment of a watch: its job, with the whole spec. Written if absent."""
    return f"{watch_segments(root)}{number:06d}.json"


def segment_job(name: str, stamp: str, number: int) -> str:
    """The id of the job of a segment; `name` and `stamp` are those of its watch."""
    return f"{name}-{stamp}-{number:06d}"


def parse_segment_job(job: str) -> tuple[str, str, int] | None:
    """The name and the stamp of the watch, and the number of its segment, whose job has this id, or None."""
    match = _SEGMENT_JOB.fullmatch(job)
    return (match[1], match[2], int(match[3])) if match else None


def parse_segment(key: str) -> int | None:
    """The number of the segment that an object key names, or None."""
    match = _SEGMENT.search(key)
    return int(match[1]) if match else None


def watch_thens(root: str) -> str:
    """Prefix of what the ends of a watch's segments have started."""
    return f"{root}then/"


def watch_then(root: str, number: int) -> str:
    """What the end of a segment starts, with the whole spec of the job. Written if absent."""
    return f"{watch_thens(root)}{number:06d}.json"


def watch_then_begun(root: str, number: int) -> str:
    """Empty; says that the job was submitted, so that nobody submits it again once it is deleted."""
    return f"{watch_thens(root)}{number:06d}.begun"


def parse_then(key: str) -> tuple[int, bool] | None:
    """The segment that an object key names, and whether what it starts is begun; or None."""
    match = _THEN.search(key)
    return (int(match[1]), match[2] == "begun") if match else None


def watch_archives(root: str) -> str:
    """Prefix of which segments of a watch are in its archive."""
    return f"{root}archived/"


def watch_archive(root: str, number: int) -> str:
    """What was moved of a segment; written last, and deleted when the segment's job has run again."""
    return f"{watch_archives(root)}{number:06d}.json"


def parse_archive(key: str) -> int | None:
    """The number of the segment that an object key says is in the archive, or None."""
    match = _ARCHIVE.search(key)
    return int(match[1]) if match else None


def watch_seen(root: str) -> str:
    """Prefix of the sorted runs of what a watch has planned in closed segments."""
    return f"{root}seen/"


@dataclass(frozen=True)
class RedisKeys:
    """Redis keys under one namespace."""

    namespace: str

    @property
    def broker_prefix(self) -> str:
        """Prefix of everything that Celery keeps."""
        return f"{self.namespace}:celery:"

    @property
    def jobs(self) -> str:
        """Sorted set of job ids by time of creation."""
        return f"{self.namespace}:jobs"

    @property
    def active(self) -> str:
        """Set of the ids of jobs that have not ended."""
        return f"{self.namespace}:active"

    def job(self, id: str) -> list[str]:
        """The six keys of a job: hash, done bits, leases, trouble, queued, copies (entry.lua)."""
        base = f"{self.namespace}:job:{id}"
        return [base, f"{base}:done", f"{base}:leases", f"{base}:trouble", f"{base}:queued", f"{base}:copies"]

    @property
    def dispatch(self) -> tuple[str, str, str]:
        """Prefixes of the entries of jobs, of the index of those that have a shard to run, and of queues; the order of
        entry.lua."""
        return f"{self.namespace}:job:", f"{self.namespace}:next:", self.broker_prefix

    @property
    def slots(self) -> str:
        """Hash of queues: the slots of all live workers that serve one."""
        return f"{self.namespace}:next:slots"

    @property
    def rules(self) -> str:
        """Hash of the rules by which live workers load models (`contract.models.rules`): JSON by id."""
        return f"{self.namespace}:next:rules"

    def lock(self, what: str, id: str = "") -> str:
        return f"{self.namespace}:lock:{what}" + (f":{id}" if id else "")

    @property
    def rejected(self) -> str:
        """Number of malformed messages that were rejected, by kind; kept for 30 days after the last."""
        return f"{self.namespace}:rejected"

    @property
    def schedules(self) -> str:
        """Sorted set of schedules by their last tick that is done with."""
        return f"{self.namespace}:schedules"

    @property
    def watches(self) -> str:
        """Hash of how each watch stands, by name, as its controller last wrote it."""
        return f"{self.namespace}:watches"

    @property
    def watchers(self) -> str:
        """Sorted set of the controllers that keep watches, by when they last said so."""
        return f"{self.namespace}:watchers"

    def watch(self, name: str) -> str:
        """The controller that keeps a watch, a string with a TTL."""
        return f"{self.namespace}:watch:{name}"

    def hints(self, watch: str) -> str:
        """Stream of keys that were announced for a watch, with a TTL (`contract.watches.hints`)."""
        return f"{self.namespace}:hints:{watch}"

    @property
    def hinted(self) -> str:
        """Stream of the names of watches for which a key was announced, with a TTL (`contract.watches.hints`)."""
        return f"{self.namespace}:hinted"

    @property
    def clock(self) -> str:
        """Present as long as ticks arrive."""
        return f"{self.namespace}:clock"

    def worker(self, name: str) -> str:
        """Heartbeat of a worker, a hash with a TTL."""
        return f"{self.namespace}:worker:{name}"

    def drain(self, name: str) -> str:
        """The process of a worker that is asked to drain, a string with a TTL (`contract.fleet.drain`)."""
        return f"{self.namespace}:drain:{name}"

    @property
    def workers(self) -> str:
        """Set of the names of workers whose heartbeat may be there."""
        return f"{self.namespace}:workers"

    def scale(self, pool: str) -> str:
        """How many workers a pool was last asked to have, with a TTL."""
        return f"{self.namespace}:scale:{pool}"

    @property
    def rates(self) -> str:
        """Measured images per second, a hash with a TTL (`contract.fleet.rates`)."""
        return f"{self.namespace}:rates"


@dataclass(frozen=True)
class OnlineKeys:
    """Keys of the online path, which may lie in another Redis. `model` is `name@version`, `id` that of a request."""

    namespace: str

    @property
    def open(self) -> str:
        """Sorted set of the ids of requests without a reply, by their deadline in milliseconds of Redis' clock."""
        return f"{self.namespace}:online:open"

    @property
    def load(self) -> str:
        """Hash of what these weigh: `bytes`, and `images:MODEL` for each model."""
        return f"{self.namespace}:online:load"

    @property
    def changed(self) -> str:
        """A number that grows when a model is served or no longer; absent after a restart."""
        return f"{self.namespace}:online:changed"

    def requests(self, model: str) -> str:
        """Stream of ids of requests; workers read it as the group `workers`."""
        return f"{self.namespace}:online:requests:{model}"

    def payload(self, id: str) -> str:
        """What a request asks for and its images, with a TTL until the deadline."""
        return f"{self.namespace}:online:payload:{id}"

    def replies(self, asker: str) -> str:
        """List of the replies to one asking process, with a TTL."""
        return f"{self.namespace}:online:replies:{asker}"

    def workers(self, model: str) -> str:
        """Hash of the processes that serve a model: when each last said so, its images per second, and the latency."""
        return f"{self.namespace}:online:workers:{model}"

    def faults(self, id: str) -> str:
        """Set of the processes on which a request raised, with a TTL."""
        return f"{self.namespace}:online:faults:{id}"
