"""What was agreed (plans), what was done (commits), and how far a job is (status).

What is asked for is in `contract.jobs.specs`. Everything here is frozen and travels as JSON; nothing talks to a server.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.records import Record

State = Literal["queued", "planning", "running", "finalizing", "succeeded", "failed", "canceled"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "canceled"})


class Plan(Record):
    """`_PLAN.json`: written when every shard manifest is."""

    shards: int
    items: int
    skipped: int = Field(0, description="Files that are no images by their name.")


class ShardCommit(Record):
    """The commit of one shard; written after its output. A bisected shard has no output but `split`."""

    shard: int
    retry: int = 0
    items: int
    ok: int
    errors: int
    error_codes: dict[str, int] = Field(default_factory=dict)
    labels: dict[str, int] = Field(default_factory=dict)
    output: str | None = Field(default=None, description="s3:// address of the rows.")
    model: str | None = Field(default=None, description="What a training published, or an evaluation judged.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Of the best epoch, or of an evaluation.")
    sha256: str | None = None
    split: tuple[int, int] | None = None
    worker: str = ""
    runtime: str = ""
    precision: str = ""
    seconds: float = 0.0


class Retry(Record):
    """Which shards a `retry` runs again."""

    number: int
    shards: tuple[int, ...]


class Shards(Record):
    """Shards by state."""

    total: int = 0
    done: int = 0
    running: int = 0
    queued: int = 0


class Status(Record):
    """How far a job is; what `imagemill show --json` prints. Times are UTC, ISO 8601."""

    id: str
    kind: str
    state: State
    total: int | None = Field(default=None, description="Items; None until the plan is complete.")
    done: int = 0
    ok: int = 0
    errors: int = 0
    shards: Shards = Shards()
    images_per_second: float | None = None
    eta_seconds: float | None = None
    created_at: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    output: str = ""
    model: str = ""
    source: str = ""
    skipped: int = 0
    reason: str | None = Field(default=None, description="Why a job failed, in one sentence.")
    error_codes: dict[str, int] | None = None
    labels: dict[str, int] | None = None
    metrics: dict[str, float] | None = Field(default=None, description="The newest of a training, or of an evaluation.")

    @property
    def ended(self) -> bool:
        return self.state in ENDED
