"""Records of a running job: its plan, the commits of its shards, its retries, its status.

All are frozen and travel as JSON; nothing here talks to a server. Specs are in `contract.jobs.specs`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.records import Priority, Record, Sha256

State = Literal["queued", "planning", "running", "finalizing", "succeeded", "failed", "canceled"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "canceled"})
STATES: dict[State, str] = {
    "queued": "The job is recorded; nobody has started to plan it.",
    "planning": "The source is being listed or packed; the first shards may already run.",
    "running": "The plan is complete, and workers are running shards.",
    "finalizing": "Every shard is committed; the summary is being written.",
    "succeeded": "Every image has a row, and no more failed than `--max-errors` allows.",
    "failed": "The job ended without its result; `reason` says why.",
    "canceled": "Somebody stopped the job; `imagemill resume` continues it.",
}
"""What each state means, in the order in which a job passes through them."""


class Plan(Record):
    """`_PLAN.json`: written once every shard manifest is."""

    shards: int
    items: int
    skipped: int = Field(0, description="Files skipped because their names are not those of images.")


class Output(Record):
    """An object that a shard wrote, as its commit names it."""

    address: str = Field(description="s3:// address, which holds a digest of the content where attempts may differ.")
    size: int = Field(description="Bytes.")
    sha256: Sha256
    public: str | None = Field(default=None, description="s3:// address that the finalizer copies it to.")


class ShardCommit(Record):
    """The commit of one shard, written after its output. A bisected shard has no output, but `split`."""

    shard: int
    retry: int = 0
    items: int
    ok: int
    errors: int
    error_codes: dict[str, int] = Field(default_factory=dict)
    labels: dict[str, int] = Field(default_factory=dict)
    output: str | None = Field(default=None, description="s3:// address of the rows.")
    model: str | None = Field(default=None, description="The model that a training published or an evaluation judged.")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="Metrics of the best epoch or of an evaluation."
    )
    sha256: Sha256 | None = None
    outputs: tuple[Output, ...] = Field(default=(), description="Every object of the shard; empty in older commits.")
    split: tuple[int, int] | None = None
    worker: str = ""
    runtime: str = ""
    precision: str = ""
    decoder: str = Field(default="", description="What decoded images beside Pillow, with its version.")
    seconds: float = 0.0


class Retry(Record):
    """The shards that one `imagemill retry` runs again."""

    number: int
    shards: tuple[int, ...]


class RunStart(Record):
    """What opens a run of a job after its first. The object is written only if absent, so one caller opens it."""

    run: int
    opened_at: str
    token: str = Field(description="Tells a caller whose answer was lost that the object is its own.")
    retry: Retry | None = Field(default=None, description="What `imagemill retry` runs again; null for a `resume`.")


class Shards(Record):
    """Shards by state."""

    total: int = 0
    done: int = 0
    running: int = 0
    queued: int = 0


class Status(Record):
    """How far a job is; what `imagemill show --json` prints. Times are UTC, ISO 8601."""

    id: str = Field(description="Id of the job.")
    kind: str = Field(description="What the job does: `classify`, `train`, `generate`, …")
    state: State = Field(description="Where the job stands.")
    total: int | None = Field(
        default=None, description="Images; null until the plan is complete. For a training, images of all epochs."
    )
    done: int = Field(default=0, description="Images that have a row: `ok` plus `errors`.")
    ok: int = Field(default=0, description="Images that were processed.")
    errors: int = Field(default=0, description="Images that failed.")
    shards: Shards = Field(default=Shards(), description="Shards by state: `total`, `done`, `running`, `queued`.")
    images_per_second: float | None = Field(
        default=None, description="Rate over the recent past; once the job has ended, over the whole run."
    )
    eta_seconds: float | None = Field(default=None, description="Time left at that rate.")
    created_at: str = Field(default="", description="When the job was submitted.")
    started_at: str | None = Field(default=None, description="When its first shard started.")
    finished_at: str | None = Field(default=None, description="When it ended.")
    output: str = Field(default="", description="`s3://` prefix of the results.")
    model: str = Field(default="", description="The model, as `name@version`; for a training, the name it publishes.")
    source: str = Field(default="", description="The source, as typed.")
    skipped: int = Field(default=0, description="Files that were skipped because their suffix is not that of an image.")
    owner: str = Field(default="", description="Who submitted it; empty: an earlier version did not record that.")
    priority: Priority = Field(default="normal", description="Class of the job among all: `low`, `normal` or `high`.")
    weight: float = Field(default=1.0, description="Share among the owner's jobs of one priority.")
    max_slots: int = Field(default=0, description="Shards that run at once, at most; 0: any number.")
    waiting_for: str | None = Field(
        default=None, description="What no live worker has that the job needs; null if some worker can run it."
    )
    reason: str | None = Field(default=None, description="Why the job failed, in one sentence.")
    error_codes: dict[str, int] | None = Field(
        default=None, description="Number of failed images by error code, once the job has ended."
    )
    labels: dict[str, int] | None = Field(
        default=None, description="Number of images by label, or by class for generated ones, once the job has ended."
    )
    metrics: dict[str, float] | None = Field(
        default=None,
        description="What was measured. For a training, the newest epoch; once it has ended, the best one.",
    )

    @property
    def ended(self) -> bool:
        return self.state in ENDED
