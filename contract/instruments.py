"""Every metric of Imagemill: what `/metrics` of controller, worker and HTTP API shows, and nothing else.

Names follow Prometheus' rules: the prefix `imagemill_`, base units, `_total` on counters; those of the HTTP API also
follow OpenTelemetry's conventions for HTTP servers. No job, shard, worker, key or path is a label, for there is no
bound on how many there are. A dashboard or an alert takes its names from here; the reference page is made from it.

Gauges of the controller describe the whole fleet, as it reads it from Redis. With two controllers both show the same
figures: take `max`, not `sum`.
"""

from __future__ import annotations

from typing import get_args

from contract.errors import IMAGE_ERRORS
from contract.jobs.specs import AnySpec
from contract.jobs.status import ENDED, STATES
from contract.keys.queues import WORKER_QUEUES
from contract.telemetry.meters import Counter, Gauge, Histogram, Instrument, Label

KIND = Label("kind", tuple(spec.model_fields["kind"].default for spec in get_args(AnySpec)))
"""The kind of a job: `classify`, `train`, …"""
MODEL = Label("model", most=50)
"""`name@version`; empty for a kind of job that has none."""
QUEUE = Label("queue", WORKER_QUEUES)
POOL = Label("pool", most=50)
WATCH = Label("watch", most=200)
"""The name of a watch."""
DEVICE = Label("device", most=16)
"""`cpu`, `cuda`, or `cuda:1`."""
STATUS = Label("status", ("ok", "error"))
CODE = Label("code", tuple(IMAGE_ERRORS))
"""The code of a bad image; see the reference of errors."""
JOB_STATE = Label("state", tuple(state for state in STATES if state not in ENDED))
JOB_END = Label("state", tuple(state for state in STATES if state in ENDED))
SHARD_STATE = Label("state", ("queued", "running", "done"))
WORKER_STATE = Label("state", ("serving", "draining", "unfit"))
TASK = Label("task", ("classify", "classify-sequence", "generate"))
STAGE = Label(
    "stage",
    (
        *("fetch", "decode", "forward", "encode", "put"),
        *("sample", "judge"),
        *("read", "step", "validate", "checkpoint"),
    ),
)
OUTCOME = Label(
    "outcome",
    ("committed", "overtaken", "stopped", "lost", "returned", "postponed", "passed_on", "faulted", "unfit", "failed"),
)
ONLINE_OUTCOME = Label("outcome", ("done", "refused", "failed", "overtaken", "expired", "malformed", "passed_on"))
ONLINE_STAGE = Label("stage", ("wait", "fetch", "compute", "reply"))
REASON = Label("reason", ("lapsed", "rebuilt"))
OPERATION = Label("operation", ("get", "put", "put_if_absent", "copy", "stat", "list", "delete", "bucket"))
FAULT = Label("fault", ("unavailable", "refused", "full", "credentials", "settings"))
SERVICE = Label("service", ("redis", "store"))
EVENT_RESULT = Label("result", ("taken", "unwatched", "rejected", "refused", "unavailable"))
WEBHOOK_RESULT = Label("result", ("delivered", "failed", "refused", "gone"))
TICK_STATE = Label("state", ("submitted", "skipped", "failed"))
METHOD = Label("method", ("GET", "POST", "PUT", "PATCH", "DELETE"))
ROUTE = Label("route", most=200)
"""The template of a path, as `/v1/jobs/{id}`; empty for a request that came to none."""
STATUS_CLASS = Label("status", ("2xx", "3xx", "4xx", "5xx", "none"))
STREAM = Label("stream", ("events", "rows"))
REFUSAL = Label(
    "reason",
    ("token", "forbidden", "rate", "too_large", "overloaded", "busy", "slow", "host", "headers"),
)
UPSTREAM = Label("service", ("redis", "store", "worker"))
FORWARDED = Label("outcome", ("done", "refused", "failed", "overloaded", "expired", "unavailable", "abandoned"))

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""A request to a server, up to the patience for one that does not answer."""
_HTTP = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The buckets that OpenTelemetry recommends for `http.server.request.duration`."""
_SHARD = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0)
"""A shard: labels in seconds, a training in hours."""
_WAIT = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 10800.0, 86400.0)
"""A delay that people notice."""

# The fleet, from the controller

BACKLOG_IMAGES = Gauge(
    name="imagemill_backlog_images",
    description="Images that are planned and not done, by queue.",
    unit="images",
    labels=(QUEUE,),
    roles=("controller",),
)
BACKLOG_SECONDS = Gauge(
    name="imagemill_backlog_seconds",
    description="Seconds of one slot that the backlog of a queue takes, by the measured rates of its workers.",
    unit="seconds",
    labels=(QUEUE,),
    roles=("controller",),
)
RUNNABLE_SHARDS = Gauge(
    name="imagemill_runnable_shards",
    description="Shards and other tasks that a free slot could take now, by queue.",
    unit="shards",
    labels=(QUEUE,),
    roles=("controller",),
)
RUNNING_SHARDS = Gauge(
    name="imagemill_running_shards",
    description="Shards under a lease, by queue.",
    unit="shards",
    labels=(QUEUE,),
    roles=("controller",),
)
SPECULATIVE_SHARDS = Gauge(
    name="imagemill_speculative_shards",
    description="Running shards of which a second worker runs a copy, by queue.",
    unit="shards",
    labels=(QUEUE,),
    roles=("controller",),
)
SLOTS = Gauge(
    name="imagemill_slots",
    description="Slots of live workers that take new shards, by queue; a worker of two queues counts in both.",
    unit="slots",
    labels=(QUEUE,),
    roles=("controller",),
)
OLDEST_WAITING_SECONDS = Gauge(
    name="imagemill_oldest_waiting_seconds",
    description="How long the shard that has waited longest for a slot has waited, by queue; 0 if none waits.",
    unit="seconds",
    labels=(QUEUE,),
    roles=("controller",),
)
QUEUE_MESSAGES = Gauge(
    name="imagemill_queue_messages",
    description="Messages in a queue's list in Redis. They are tickets, and say nothing about the backlog.",
    labels=(QUEUE,),
    roles=("controller",),
)
WORKERS = Gauge(
    name="imagemill_workers",
    description="Live workers, by pool and by whether they take new shards.",
    unit="workers",
    labels=(POOL, WORKER_STATE),
    roles=("controller",),
)
WORKERS_WANTED = Gauge(
    name="imagemill_workers_wanted",
    description="Workers that a pool should have for its backlog, as `/scale/<pool>` answers.",
    unit="workers",
    labels=(POOL,),
    roles=("controller",),
)
JOBS = Gauge(
    name="imagemill_jobs",
    description="Jobs that have not ended, by kind and state.",
    unit="jobs",
    labels=(KIND, JOB_STATE),
    roles=("controller",),
)
SHARDS = Gauge(
    name="imagemill_shards",
    description="Shards of jobs that have not ended, by kind and state.",
    unit="shards",
    labels=(KIND, SHARD_STATE),
    roles=("controller",),
)
JOB_IDLE_SECONDS = Gauge(
    name="imagemill_job_idle_seconds",
    description="How long the job that has stood still longest has made no progress, by kind; counted from the start "
    "of this controller at most.",
    unit="seconds",
    labels=(KIND,),
    roles=("controller",),
)
WATCH_LAG_SECONDS = Gauge(
    name="imagemill_watch_lag_seconds",
    description="Age of the oldest object under a watched prefix that is not planned, as far as is known.",
    unit="seconds",
    labels=(WATCH,),
    roles=("controller",),
)
WATCH_UNPLANNED_IMAGES = Gauge(
    name="imagemill_watch_unplanned_images",
    description="Objects that a watch has found and not planned.",
    unit="images",
    labels=(WATCH,),
    roles=("controller",),
)
WATCH_UNCOMMITTED_IMAGES = Gauge(
    name="imagemill_watch_uncommitted_images",
    description="Objects that a watch has planned and that have no row yet.",
    unit="images",
    labels=(WATCH,),
    roles=("controller",),
)
WATCH_TABLE_WAITING_SEGMENTS = Gauge(
    name="imagemill_watch_table_waiting_segments",
    description="Segments of a watch that have ended and are not in its table.",
    unit="segments",
    labels=(WATCH,),
    roles=("controller",),
)
WATCH_ARCHIVE_WAITING_SEGMENTS = Gauge(
    name="imagemill_watch_archive_waiting_segments",
    description="Segments of a watch that have ended and whose images are not in its archive.",
    unit="segments",
    labels=(WATCH,),
    roles=("controller",),
)
WATCH_ARCHIVED_IMAGES = Gauge(
    name="imagemill_watch_archived_images",
    description="Images of a watch that are in its archive.",
    unit="images",
    labels=(WATCH,),
    roles=("controller",),
)
FLEET_AGE_SECONDS = Gauge(
    name="imagemill_fleet_age_seconds",
    description="Age of these figures of the fleet: seconds since the controller last read them from Redis.",
    unit="seconds",
    roles=("controller",),
)

# The controller's own work

EVENTS = Counter(
    name="imagemill_events_total",
    description="Objects that were announced to `/v1/events`, taken for a watch or of no watch's prefix; requests that "
    "were rejected, refused, or not written because Redis was unavailable.",
    labels=(EVENT_RESULT,),
    roles=("controller",),
)
RECONCILE_AGE_SECONDS = Gauge(
    name="imagemill_reconcile_age_seconds",
    description="Seconds since any controller last began a round of the reconciler.",
    unit="seconds",
    roles=("controller",),
)
RECONCILE_SECONDS = Histogram(
    name="imagemill_reconcile_seconds",
    description="How long a round of the reconciler took.",
    unit="seconds",
    roles=("controller",),
    buckets=_SHORT,
)
REQUEUES = Counter(
    name="imagemill_requeues_total",
    description="Shards handed out again because their worker was lost, `lapsed`, and ledger entries that were "
    "`rebuilt` from the bucket.",
    labels=(REASON,),
    roles=("controller",),
)
SCHEDULE_DELAY_SECONDS = Histogram(
    name="imagemill_schedule_delay_seconds",
    description="Seconds between the time at which a schedule was due and its job's submission.",
    unit="seconds",
    roles=("controller",),
    buckets=_WAIT,
)
SCHEDULE_TICKS = Counter(
    name="imagemill_schedule_ticks_total",
    description="Ticks of schedules that were decided: a job was submitted, skipped, or could not be made.",
    labels=(TICK_STATE,),
    roles=("controller",),
)
WEBHOOK_ATTEMPTS = Counter(
    name="imagemill_webhook_attempts_total",
    description="Requests to webhooks: `delivered`; `failed`, to be repeated; `refused`, the address may not be "
    "reached; `gone`, the receiver answered 410 and is told nothing more.",
    labels=(WEBHOOK_RESULT,),
    roles=("controller",),
)
WEBHOOK_GIVEN_UP = Counter(
    name="imagemill_webhook_given_up_total",
    description="Messages to webhooks that were not delivered and are not repeated.",
    roles=("controller",),
)
WEBHOOK_WAITING = Gauge(
    name="imagemill_webhook_waiting",
    description="Messages to webhooks that are not delivered yet, as the controller sees them that delivers.",
    roles=("controller",),
)
WEBHOOK_OLDEST_SECONDS = Gauge(
    name="imagemill_webhook_oldest_seconds",
    description="Age of the oldest message to a webhook that is not delivered yet; 0 if none waits.",
    unit="seconds",
    roles=("controller",),
)
PLAN_SECONDS = Histogram(
    name="imagemill_plan_seconds",
    description="How long planning a job took, by kind.",
    unit="seconds",
    labels=(KIND,),
    roles=("controller",),
    buckets=_SHARD,
)
FINALIZE_SECONDS = Histogram(
    name="imagemill_finalize_seconds",
    description="How long ending a job took once its shards were committed, by kind.",
    unit="seconds",
    labels=(KIND,),
    roles=("controller",),
    buckets=_SHARD,
)
REDIS_MEMORY_BYTES = Gauge(
    name="imagemill_redis_memory_bytes",
    description="Memory that Redis uses.",
    unit="bytes",
    roles=("controller",),
)
REDIS_MEMORY_LIMIT_BYTES = Gauge(
    name="imagemill_redis_memory_limit_bytes",
    description="Memory that Redis may use: its `maxmemory`, or the memory of its machine where that is not set.",
    unit="bytes",
    roles=("controller",),
)
REDIS_CLIENTS = Gauge(
    name="imagemill_redis_clients",
    description="Connections that Redis has open.",
    roles=("controller",),
)

# Workers

IMAGES = Counter(
    name="imagemill_images_total",
    description="Images in the shards that this process committed, by kind of job, model, and whether they have a "
    "result or an error.",
    unit="images",
    labels=(KIND, MODEL, STATUS),
)
ERRORS = Counter(
    name="imagemill_image_errors_total",
    description="Error rows in the shards that this process committed, by their code.",
    labels=(CODE,),
)
ATTEMPTS = Counter(
    name="imagemill_attempts_total",
    description="Attempts at a shard that ended here, by kind and outcome: `committed`; `overtaken`, another worker's "
    "commit counts; `stopped` with its job; `lost` its lease; `returned` by a worker that leaves; `postponed`, a "
    "service did not answer; `passed_on` to another worker; `faulted`, it raised; `unfit`, this worker is; `failed`, "
    "and its job with it.",
    labels=(KIND, OUTCOME),
)
SPECULATIVE_ATTEMPTS = Counter(
    name="imagemill_speculative_attempts_total",
    description="Second copies of a shard that took another worker too long, by kind and outcome: a copy that was "
    "faster is `committed`, one that was not is `overtaken`. They count as attempts too.",
    labels=(KIND, OUTCOME),
)
SHARD_SECONDS = Histogram(
    name="imagemill_shard_seconds",
    description="How long a committed shard took, from its lease to its commit, by kind.",
    unit="seconds",
    labels=(KIND,),
    buckets=_SHARD,
)
STAGE_SECONDS = Counter(
    name="imagemill_stage_seconds_total",
    description="Seconds of this worker in each stage; `fetch` is what a shard waits for bytes, `forward` may wait for "
    "the device. A generator has `sample`, and `judge` if there is a gate; a training has `read` for its data, then "
    "`step`, `validate` and `checkpoint`. The rate is the mean number of threads there; stages overlap.",
    unit="seconds",
    labels=(STAGE,),
)
DEVICE_BUSY_SECONDS = Counter(
    name="imagemill_device_busy_seconds_total",
    description="Seconds in which a device had something to compute: at least one batch of a classifier, a group of a "
    "generator, or a step or validation of a training. The rate is the share of time in which it is busy.",
    unit="seconds",
    labels=(DEVICE,),
)
TRAINED_IMAGES = Counter(
    name="imagemill_trained_images_total",
    description="Images that the steps of trainings have learned from, by the task of the model; each counts once an "
    "epoch. The evaluation of a generator trains classifiers, whose images count too.",
    unit="images",
    labels=(TASK,),
)
MODEL_LOAD_SECONDS = Histogram(
    name="imagemill_model_load_seconds",
    description="How long loading a model took, its download included.",
    unit="seconds",
    labels=(MODEL,),
    buckets=_SHORT,
)
COLD_START_SECONDS = Gauge(
    name="imagemill_cold_start_seconds",
    description="Seconds from the start of this process until it was ready for its first shard.",
    unit="seconds",
)
ONLINE_REQUESTS = Counter(
    name="imagemill_online_requests_total",
    description="Single requests that ended in this process, by outcome: `done`; `refused`, the model cannot do it; "
    "`failed`, it raised; `overtaken`, another worker's reply was first or nobody waited any more; `expired` before it "
    "was read; `malformed`; `passed_on` to another worker.",
    labels=(ONLINE_OUTCOME,),
)
ONLINE_SECONDS = Histogram(
    name="imagemill_online_seconds",
    description="How long a single request took in each stage: `wait` from its admission until a worker has it, "
    "`fetch` its images from Redis, `compute` until there are results, `reply` to Redis.",
    unit="seconds",
    labels=(ONLINE_STAGE,),
    buckets=_SHORT,
)
SHARDS_HELD = Gauge(
    name="imagemill_shards_held",
    description="Shards that this worker holds a lease on.",
    unit="shards",
)
IMAGE_MEMORY_BYTES = Gauge(
    name="imagemill_image_memory_bytes",
    description="Memory that is reserved for images in this process.",
    unit="bytes",
)
IMAGE_MEMORY_LIMIT_BYTES = Gauge(
    name="imagemill_image_memory_limit_bytes",
    description="Memory that images may take in this process, `IMAGEMILL_MEMORY`.",
    unit="bytes",
)

# The HTTP API

HTTP_REQUEST_SECONDS = Histogram(
    name="imagemill_http_server_request_duration_seconds",
    description="How long a request took, from its head to the end of its answer, or to the beginning of an event "
    "stream, by method, template of the path and class of the status. The route is empty for a request that was "
    "refused before it came to one, and for a path or method that is not there; the status is `none` if no answer was "
    "begun, and `5xx` also for an answer that an error here broke off.",
    unit="seconds",
    labels=(METHOD, ROUTE, STATUS_CLASS),
    roles=("web",),
    buckets=_HTTP,
)
HTTP_ACTIVE_REQUESTS = Gauge(
    name="imagemill_http_server_active_requests",
    description="Requests under way, open streams among them. From 257 on, new ones are refused.",
    roles=("web",),
)
HTTP_STREAMS = Gauge(
    name="imagemill_http_server_streams",
    description="Answers that are being sent in pieces: `events`, the progress of a job for a client or a page of the "
    "console; `rows` of jobs and watches.",
    labels=(STREAM,),
    roles=("web",),
)
HTTP_REQUEST_BYTES = Counter(
    name="imagemill_http_server_request_body_bytes_total",
    description="Bytes of bodies that were received, by route. What clients upload to the object store does not pass "
    "through here.",
    unit="bytes",
    labels=(ROUTE,),
    roles=("web",),
)
HTTP_RESPONSE_BYTES = Counter(
    name="imagemill_http_server_response_body_bytes_total",
    description="Bytes of bodies that were sent, by route.",
    unit="bytes",
    labels=(ROUTE,),
    roles=("web",),
)
HTTP_REFUSALS = Counter(
    name="imagemill_http_server_refusals_total",
    description="Requests that were refused: `token`, it has none that is known; `forbidden` to it, or sent by another "
    "site; `rate`, more than its token may make; `too_large`; `overloaded`, an answer of a served model would come "
    "too late; `busy`, too many requests or bytes under way; `slow`, its body did not arrive in time; `host`, an "
    "unknown name of this server; `headers`, too many.",
    labels=(REFUSAL,),
    roles=("web",),
)
HTTP_UPSTREAM_ERRORS = Counter(
    name="imagemill_http_server_upstream_errors_total",
    description="Requests that failed because of a server behind this one: `redis` or `store` did not do its part, or "
    "no `worker` answered a single request in time, or it failed there.",
    labels=(UPSTREAM,),
    roles=("web",),
)
ONLINE_FORWARD_SECONDS = Histogram(
    name="imagemill_online_forward_seconds",
    description="How long a single request to a served model waited for its answer, by outcome: `done`; `refused`, the "
    "model cannot do it; `failed` on a worker; `overloaded`, it was not let in; `expired`; `unavailable`, Redis was; "
    "`abandoned` by whoever asked.",
    unit="seconds",
    labels=(FORWARDED,),
    roles=("web",),
    buckets=_SHORT,
)

# Several of them

JOBS_ENDED = Counter(
    name="imagemill_jobs_ended_total",
    description="Jobs that this process ended, by kind and state. What a producer cancels is counted by nobody.",
    unit="jobs",
    labels=(KIND, JOB_END),
    roles=("controller", "worker"),
)
STORE_SECONDS = Histogram(
    name="imagemill_store_seconds",
    description="How long a call of the object store took, retries included, by operation.",
    unit="seconds",
    labels=(OPERATION,),
    roles=("controller", "worker", "web"),
    buckets=_SHORT,
)
STORE_FAULTS = Counter(
    name="imagemill_store_faults_total",
    description="Requests that the object store did not serve, those retried included. Missing objects are no faults.",
    labels=(OPERATION, FAULT),
    roles=("controller", "worker", "web"),
)
REDIS_SECONDS = Histogram(
    name="imagemill_redis_seconds",
    description="How long a call of the ledger in Redis took, retries included.",
    unit="seconds",
    roles=("controller", "worker", "web"),
    buckets=_SHORT,
)
ANSWERED_AGE_SECONDS = Gauge(
    name="imagemill_answered_age_seconds",
    description="Seconds since Redis or the object store last answered this process.",
    unit="seconds",
    labels=(SERVICE,),
    roles=("controller", "worker", "web"),
)
LIVE = Gauge(
    name="imagemill_live",
    description="1 while `/livez` answers 200: this process makes progress, or has nothing to do.",
    roles=("controller", "worker", "web"),
)
READY = Gauge(
    name="imagemill_ready",
    description="1 while `/readyz` answers 200: this process takes new work.",
    roles=("controller", "worker", "web"),
)
BUILD_INFO = Gauge(
    name="imagemill_build_info",
    description="Always 1; the labels say which version runs, in which role and pool.",
    labels=(Label("version", most=1), Label("role", ("controller", "worker", "both", "web")), Label("pool", most=1)),
    roles=("controller", "worker", "web"),
)

INSTRUMENTS: tuple[Instrument, ...] = tuple(found for found in vars().values() if isinstance(found, Instrument))
"""All of them, in the order of this page."""
