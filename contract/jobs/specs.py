"""The spec of each kind of job: frozen JSON, written to the bucket before anything is queued.

A spec is what the user asked for (`contract.jobs.options`) with everything pinned: its id, each model as
`name@version`, the source as an address. It knows nothing of how a job is planned or run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints, TypeAdapter

from contract.datasets.records import Balance, Extend
from contract.jobs.options import (
    ClassifyFields,
    EvaluateFields,
    ImageFields,
    InterpolateFields,
    ReconstructFields,
    SampledFields,
    SynthesizeFields,
    TrainFields,
    VerifyFields,
)
from contract.jobs.sources import SourceName, source_kind
from contract.models.recipes import AnyRecipe
from contract.records import Record, Sha256

JOB_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
JobId = Annotated[str, StringConstraints(pattern=JOB_ID)]


class Source(Record):
    """Where the images are; `contract.jobs.sources` says what each kind means."""

    kind: SourceName
    uri: str
    label: str = Field(description="What the user typed, for display.")
    parts: tuple[Source, ...] = Field(
        (), exclude_if=lambda parts: not parts, description="The sources that it stands for, if it is `several`."
    )

    @property
    def each(self) -> tuple[Source, ...]:
        """The sources that it stands for: its parts, or itself."""
        return self.parts or (self,)

    @staticmethod
    def several(parts: Sequence[Source]) -> Source:
        """Return one source for several, one behind the other."""
        label = " + ".join(part.label for part in parts)
        return Source(kind="several", uri="", label=label, parts=tuple(parts))

    @property
    def archived(self) -> bool:
        """Whether a watch moves its images once they are labelled: then a second address follows the first."""
        return source_kind(self.kind).watched and " s3://" in self.uri


class Classify(ClassifyFields):
    """Label every image of a source with a classifier."""

    kind: Literal["classify"] = "classify"
    id: JobId
    source: Source
    weights_sha256: Sha256
    frames: int = Field(0, ge=0, description="Frames per sequence that the model takes; 0: it takes single images.")
    output: str = Field(description="s3:// prefix of the Parquet shards, with a trailing slash.")

    def error_limit(self, total: int) -> int:
        """Return how many of `total` items may fail before the job does."""
        if self.max_errors.endswith("%"):
            return int(total * float(self.max_errors[:-1]) / 100)
        return int(self.max_errors)


class Train(TrainFields):
    """Train a model of a family on labelled images, and publish its best epoch as a new version of `name`."""

    kind: Literal["train"] = "train"
    id: JobId
    source: Source
    recipe: AnyRecipe
    owner: str = Field("", description="Who will own the model.")
    output: str = Field(description="s3:// prefix of curves and pictures, with a trailing slash.")

    @property
    def model(self) -> str:
        """The name to be published; its version is known when it is."""
        return self.name

    def error_limit(self, total: int) -> int:
        """Return `total`: unreadable images are skipped and counted, and never fail the job."""
        return total


class Evaluate(EvaluateFields):
    """Evaluate a model on labelled images."""

    kind: Literal["evaluate"] = "evaluate"
    id: JobId
    source: Source
    weights_sha256: Sha256
    output: str = Field(description="s3:// prefix of figures and page, with a trailing slash.")

    def error_limit(self, total: int) -> int:
        """Return `total`: unreadable images are skipped and counted, and never fail the job."""
        return total


class _Images(ImageFields):
    """Fields of every job that generates images."""

    id: JobId
    weights_sha256: Sha256
    output: str = Field(description="s3:// prefix of tars and indices, with a trailing slash.")

    def error_limit(self, total: int) -> int:
        """Return `total`: a rejected candidate is no error, and an unreadable source image is skipped and counted."""
        return total


class _Sampled(_Images, SampledFields):
    """Fields of jobs whose latents are drawn from a seed."""

    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the latents.")
    classes: tuple[int, ...] = Field(min_length=1, description="Class indices of the generator.")

    @property
    def source(self) -> Source:
        """A placeholder: the images are drawn from a seed, not read."""
        return Source(kind="seed", uri="", label=f"seed {self.seed}")


class Generate(_Sampled):
    """Generate images, spread evenly over the classes."""

    kind: Literal["generate"] = "generate"
    count: int = Field(ge=1, description="Images in all; the first classes get one more if it does not divide evenly.")


class Synthesize(_Sampled, SynthesizeFields):
    """Generate images until `per_class` of each class are accepted, or as many as `counts` says."""

    kind: Literal["synthesize"] = "synthesize"
    per_class: int = Field(ge=1, description="Images of each class to accept; with `counts`, the most of any.")
    counts: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Images to accept of each of `classes`; empty: `per_class` of each."
    )
    balance: Balance | None = Field(None, description="What `counts` follow from.")
    gate_sha256: Sha256
    away_from: Source | None = Field(None, description="Labelled images that no accepted image may copy.")
    extend: Extend | None = Field(None, description="The version of a dataset that the images become.")

    def wanted(self, label: int) -> int:
        """Return how many images of a class to accept, by its index."""
        return self.counts[self.classes.index(label)] if self.counts else self.per_class


class Reconstruct(_Images, ReconstructFields):
    """Encode labelled images to the mean of their latents, and decode them again."""

    kind: Literal["reconstruct"] = "reconstruct"
    source: Source


class Original(Record):
    """An image in the store to be encoded."""

    uri: str = Field(pattern=r"^s3://", description="Its address.")
    label: str = Field(description="What the user typed, for display.")


class Interpolate(_Images, InterpolateFields):
    """Encode two images to the mean of their latents, and decode evenly spaced points between them."""

    kind: Literal["interpolate"] = "interpolate"
    ends: tuple[Original, Original]
    classes: tuple[int, ...] = Field(min_length=1, max_length=1, description="Index of the class of both ends.")

    @property
    def source(self) -> Source:
        """The two images."""
        a, b = self.ends
        return Source(kind="pair", uri=f"{a.uri} {b.uri}", label=f"{a.label} to {b.label}")


SampledSpec: TypeAlias = Generate | Synthesize
"""Jobs that draw images from a seed, so that their records alone reproduce them."""
EncodedSpec: TypeAlias = Reconstruct | Interpolate
"""Jobs that encode images, and so need a model with an encoder."""
ImagesSpec: TypeAlias = Generate | Synthesize | Reconstruct | Interpolate
"""Jobs that generate images."""


class Verify(VerifyFields):
    """Generate images of an earlier job again, from its records, and compare them with its files."""

    kind: Literal["verify"] = "verify"
    id: JobId
    job: JobId = Field(description="The job to verify.")
    dataset: str = Field("", description="name@number of the dataset to verify, whose newest version is that job.")
    model: str = Field(description="name@version that it used.")
    weights_sha256: Sha256
    output: str = Field(description="s3:// prefix of the summary, with a trailing slash.")

    @property
    def source(self) -> Source:
        """The job to verify."""
        return Source(kind="job", uri=self.job, label=f"dataset:{self.dataset}" if self.dataset else f"job:{self.job}")

    def error_limit(self, total: int) -> int:
        """Return `total`: an image that differs fails the job by itself."""
        return total


AnySpec = Classify | Train | Evaluate | Generate | Synthesize | Reconstruct | Interpolate | Verify
Spec = Annotated[AnySpec, Field(discriminator="kind")]
_SPEC: TypeAdapter[AnySpec] = TypeAdapter(Spec)


def parse_spec(value: object) -> AnySpec:
    """Return the spec in a JSON object; raises pydantic.ValidationError."""
    return _SPEC.validate_python(value)
