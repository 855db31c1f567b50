"""What is asked for: one spec a kind of job. Frozen, JSON, and written to the bucket before anything is queued.

It knows nothing of how a job is planned or run.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, TypeAdapter, field_validator

from contract.recipes import AnyRecipe
from contract.records import Precision, Record

JOB_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
JobId = Annotated[str, StringConstraints(pattern=JOB_ID)]


class Source(Record):
    """Where the images are.

    `prefix`: every object under an `s3://` address; `tars`: the members of the tars there;
    `manifest`: the rows of a file in the store; `packed`: a local folder that the producer packs
    into one tar a shard while it plans; `uploaded`: the same for a training, all of it packed before, with
    a manifest beside each tar under an `s3://` address; `idx`: images and labels in the MNIST format; `job`: the
    images of an earlier job with the labels that it gave them, `uri` being its id.
    """

    kind: Literal["prefix", "tars", "manifest", "packed", "uploaded", "idx", "job"]
    uri: str
    label: str = Field(description="What the user typed, for people.")


class Classify(Record):
    """Label every image of a source with a classifier."""

    kind: Literal["classify"] = "classify"
    id: JobId
    source: Source
    model: str = Field(description="name@version, resolved when the job was made.")
    weights_sha256: str
    frames: int = Field(0, ge=0, description="Of a sequence, how many the model looks at; 0: it looks at images.")
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


class Train(Record):
    """Train a model of a family on labelled images, and publish the best of it as a new version of `name`."""

    kind: Literal["train"] = "train"
    id: JobId
    source: Source
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Of the model that comes out.")
    recipe: AnyRecipe
    labels: tuple[str, ...] = Field((), description="Names of the classes, in their order; empty: those of the data.")
    start: str | None = Field(None, description="name@version whose weights are begun with.")
    min_score: float = Field(0.0, ge=0, le=1, description="Of the labels of an earlier job, those this sure or surer.")
    half: bool = Field(False, description="Publish the weights in half precision (fp16): half the bytes.")
    output: str = Field(description="s3:// prefix of curves and pictures, with a slash at its end.")

    @property
    def model(self) -> str:
        """The name to be published; its version is known when it is."""
        return self.name

    def error_limit(self, total: int) -> int:
        """Images that cannot be read are left out and counted; they never fail the job."""
        return total


class Evaluate(Record):
    """Judge a model by labelled images."""

    kind: Literal["evaluate"] = "evaluate"
    id: JobId
    source: Source
    model: str = Field(description="name@version, resolved when the job was made.")
    weights_sha256: str
    precision: Precision = "auto"
    min_score: float = Field(0.0, ge=0, le=1, description="Of the labels of an earlier job, those this sure or surer.")
    output: str = Field(description="s3:// prefix of figures and page, with a slash at its end.")

    def error_limit(self, total: int) -> int:
        """Images that cannot be read are left out and counted; they never fail the job."""
        return total


Spec = Annotated[Classify | Train | Evaluate, Field(discriminator="kind")]
_SPEC: TypeAdapter[Classify | Train | Evaluate] = TypeAdapter(Spec)


def parse_spec(value: object) -> Classify | Train | Evaluate:
    """A spec from its JSON object; raises pydantic.ValidationError."""
    return _SPEC.validate_python(value)
