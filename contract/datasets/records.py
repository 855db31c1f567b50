"""The objects of a dataset in the bucket, and what a spec says of one. It knows no store."""

from __future__ import annotations

from pydantic import Field

from contract.records import ImageFormat, Record, Sha256

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"


class Extend(Record):
    """Which version of which dataset a job makes; pinned in its spec."""

    dataset: str = Field(pattern=NAME)
    number: int = Field(ge=1, description="The version; the job builds on the one before.")
    at: str = Field(description="The tick, or when the job was submitted. UTC, ISO 8601.")


class Balance(Record):
    """Why a job makes as many images of each class as it does: counts when it was submitted, pinned in its spec."""

    watch: str
    segments: int = Field(description="Segments that were counted: they have succeeded, and their jobs are there.")
    seen: dict[str, int] = Field(description="Images that the watch had labelled, by class of the generator.")
    made: dict[str, int] = Field(description="Images that the dataset held before, by class.")
    aim: int = Field(description="Images that each class is to have, seen and made.")
    per_class: int | None = Field(None, description="What `--per-class` said; null: as many as the largest class has.")
    among: tuple[str, ...] = Field(description="The classes that were looked at.")


class DatasetRecord(Record):
    """`datasets/<name>/dataset.json`: whose a dataset is."""

    name: str
    owner: str = Field(default="", description="Who may extend and remove it.")
    created_at: str
    removing: bool = Field(default=False, description="Whether it is being removed; then nobody reads it.")


class Claim(Record):
    """`datasets/<name>/claims/<number>.json`: the job that is making a version."""

    job: str


class Part(Record):
    """A shard of a version: its index, with a row for each candidate, beside the tar of the same stem."""

    index: str = Field(description="s3:// address.")
    sha256: Sha256 = Field(description="Of the index, whose rows have the hash of each image.")
    accepted: int


class Version(Record):
    """`datasets/<name>/versions/<number>.json`: what one job added to a dataset."""

    dataset: str
    number: int
    at: str = Field(description="The tick, or when the job was submitted. UTC, ISO 8601.")
    job: str
    model: str
    weights_sha256: Sha256
    gate: str
    gate_sha256: Sha256
    seed: int
    labels: tuple[str, ...] = Field(description="Every class of the generator, in its order.")
    size: int = Field(description="Side of the images in pixels.")
    channels: int
    image_format: ImageFormat
    accepted: dict[str, int] = Field(description="Images that this version added, by class.")
    parts: tuple[Part, ...]

    @property
    def ref(self) -> str:
        """The reference that always means this version."""
        return f"{self.dataset}@{self.number}"
