"""What is asked for: one spec a kind of job. Frozen, JSON, and written to the bucket before anything is queued.

It knows nothing of how a job is planned or run.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints, TypeAdapter, field_validator

from contract.jobs.sources import SourceName
from contract.models.recipes import AnyRecipe
from contract.records import Precision, Record

JOB_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
JobId = Annotated[str, StringConstraints(pattern=JOB_ID)]


class Source(Record):
    """Where the images are; `contract.jobs.sources` says what each kind means."""

    kind: SourceName
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
    features: str | None = Field(None, description="Of a generator: name@version of the classifier that compares.")
    count: int = Field(0, ge=0, description="Of a generator: images to compare; 0: as many as there are real ones.")
    cas_epochs: int = Field(0, ge=0, description="Of a generator: epochs of the classifiers trained for its score.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of generated images, and of classifiers that learn from them.")
    output: str = Field(description="s3:// prefix of figures and page, with a slash at its end.")

    def error_limit(self, total: int) -> int:
        """Images that cannot be read are left out and counted; they never fail the job."""
        return total


class _Images(Record):
    """What every job that generates has."""

    id: JobId
    model: str = Field(description="name@version of the generator, resolved when the job was made.")
    weights_sha256: str
    size: int = Field(0, ge=0, le=4096, description="Side of the images in pixels; 0: that of the generator.")
    image_format: Literal["png", "webp", "jpeg"] = "png"
    precision: Precision = "auto"
    shard_size: int = Field(1024, ge=1, le=16384, description="Images a shard, about.")
    output: str = Field(description="s3:// prefix of tars and indices, with a slash at its end.")

    def error_limit(self, total: int) -> int:
        """A candidate that is rejected is no error; an original that cannot be read is left out and counted."""
        return total


class _Sampled(_Images):
    """What every job has whose latents are drawn."""

    classes: tuple[int, ...] = Field(min_length=1, description="Of the generator, by index.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of the latents.")
    truncation: float | None = Field(None, gt=0, description="No number of a latent lies beyond; None: anywhere.")

    @property
    def source(self) -> Source:
        """None: what is generated comes of a seed."""
        return Source(kind="seed", uri="", label=f"seed {self.seed}")


class Generate(_Sampled):
    """Generate images, as many of each class as of any other."""

    kind: Literal["generate"] = "generate"
    count: int = Field(ge=1, description="In all; the first classes have one more where it cannot be shared out.")


class Synthesize(_Sampled):
    """Generate images until `per_class` of each class have passed every test."""

    kind: Literal["synthesize"] = "synthesize"
    per_class: int = Field(ge=1)
    gate: str = Field(description="name@version of the classifier that judges them.")
    gate_sha256: str
    min_score: float = Field(0.9, ge=0, le=1, description="What the gate must give the class that was asked for.")
    dedup: float | None = Field(None, gt=0, description="Nearer than this to an accepted image is a duplicate.")
    away_from: Source | None = Field(None, description="Labelled images that none may be a copy of.")
    copy_distance: float = Field(0.0002, gt=0, description="Nearer than this to one of those is a copy.")
    max_attempts: int = Field(20, ge=1, description="Candidates for each image that is wanted, at most.")


class Reconstruct(_Images):
    """Encode labelled images to their means, and decode these again."""

    kind: Literal["reconstruct"] = "reconstruct"
    source: Source
    count: int | None = Field(None, ge=1, description="The first so many images of the source; None: all.")


class Original(Record):
    """An image in the store that a latent is made of."""

    uri: str = Field(pattern=r"^s3://", description="Where it is.")
    label: str = Field(description="What the user typed, for people.")


class Interpolate(_Images):
    """Encode two images to their means, and decode what lies between."""

    kind: Literal["interpolate"] = "interpolate"
    ends: tuple[Original, Original]
    classes: tuple[int, ...] = Field(min_length=1, max_length=1, description="That of both ends, by index.")
    steps: int = Field(10, ge=2, le=10_000, description="Images, the ends included.")

    @property
    def source(self) -> Source:
        """The two images."""
        a, b = self.ends
        return Source(kind="pair", uri=f"{a.uri} {b.uri}", label=f"{a.label} to {b.label}")


SampledSpec: TypeAlias = Generate | Synthesize
"""The kinds of jobs whose images come of a seed: they can be made again from their records alone."""
EncodedSpec: TypeAlias = Reconstruct | Interpolate
"""The kinds of jobs whose latents are encoded images: they take a model that has an encoder."""
ImagesSpec: TypeAlias = Generate | Synthesize | Reconstruct | Interpolate
"""The kinds of jobs that generate."""


class Verify(Record):
    """Generate images of an earlier job again, from their records, and compare."""

    kind: Literal["verify"] = "verify"
    id: JobId
    job: JobId = Field(description="That generated them.")
    model: str = Field(description="name@version that it generated with.")
    weights_sha256: str
    sample: int = Field(64, ge=1, description="Images, spread evenly over all that were accepted.")
    output: str = Field(description="s3:// prefix of the summary, with a slash at its end.")

    @property
    def source(self) -> Source:
        """The job."""
        return Source(kind="job", uri=self.job, label=f"job:{self.job}")

    def error_limit(self, total: int) -> int:
        """An image that differs fails the job by itself."""
        return total


AnySpec = Classify | Train | Evaluate | Generate | Synthesize | Reconstruct | Interpolate | Verify
Spec = Annotated[AnySpec, Field(discriminator="kind")]
_SPEC: TypeAdapter[AnySpec] = TypeAdapter(Spec)


def parse_spec(value: object) -> AnySpec:
    """A spec from its JSON object; raises pydantic.ValidationError."""
    return _SPEC.validate_python(value)
