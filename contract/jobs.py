"""What is asked for (specs), what was agreed (plans, markers) and how far it is (status).

Everything here is frozen and travels as JSON; nothing here talks to a server.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

JOB_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
JobId = Annotated[str, StringConstraints(pattern=JOB_ID)]
State = Literal["queued", "planning", "running", "finalizing", "succeeded", "failed", "canceled"]
ENDED: frozenset[str] = frozenset({"succeeded", "failed", "canceled"})
Precision = Literal["auto", "fp32", "bf16"]


class Record(BaseModel):
    """A frozen JSON object; unknown fields are refused, so that a typo is not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


class Source(Record):
    """Where the images are.

    `prefix`: every object under an `s3://` address; `tars`: the members of the tars there;
    `manifest`: the rows of a file in the store; `packed`: a local folder that the producer packs
    into one tar a shard while it plans.
    """

    kind: Literal["prefix", "tars", "manifest", "packed"]
    uri: str
    label: str = Field(description="What the user typed, for people.")


class Classify(Record):
    """Label every image of a source with a classifier."""

    kind: Literal["classify"] = "classify"
    id: JobId
    source: Source
    model: str = Field(description="name@version, resolved when the job was made.")
    weights_sha256: str
    top_k: int = Field(5, ge=1, le=1000)
    embed: bool = False
    precision: Precision = "auto"
    shard_size: int = Field(512, ge=1, le=4096)
    max_errors: str = Field("100%", description="A count, or a share of all items.")
    output: str = Field(description="s3:// prefix of the Parquet shards, with a slash at its end.")

    @field_validator("max_errors")
    @classmethod
    def _budget(cls, value: str) -> str:
        if not re.fullmatch(r"\d+|\d{1,3}(\.\d+)?%", value) or (value[-1] == "%" and float(value[:-1]) > 100):
            raise ValueError(f"{value!r} is neither a count such as 50 nor a share such as 1%")
        return value

    def error_limit(self, total: int) -> int:
        """How many of `total` items may fail before the job does."""
        if self.max_errors.endswith("%"):
            return int(total * float(self.max_errors[:-1]) / 100)
        return int(self.max_errors)


class Plan(Record):
    """`_PLAN.json`: written when every shard manifest is."""

    shards: int
    items: int
    skipped: int = Field(0, description="Files that are no images by their name.")


class Marker(Record):
    """The commit of one shard; written after its output. A bisected shard has no output but `split`."""

    shard: int
    retry: int = 0
    items: int
    ok: int
    errors: int
    error_codes: dict[str, int] = Field(default_factory=dict)
    labels: dict[str, int] = Field(default_factory=dict)
    output: str | None = Field(default=None, description="s3:// address of the rows.")
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

    @property
    def ended(self) -> bool:
        return self.state in ENDED
