"""What a user asks for: one model per command that makes a job, with every option written once.

A field gives an option its type, its bounds, its default and its help. From these models come the options of the
command line (`producer.cli.options`), the arguments of `Client`, the arguments of a schedule, and most fields of the
specs, which inherit the groups below. Names of models and sources are as they were typed; a spec pins them.

Each `…Keywords` repeats the names and types of the options that follow `*` in a method of `Client`, so that editors and
mypy know them; `tests/contract/jobs/test_options.py` holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Required, TypedDict, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from contract.errors import InvalidInput
from contract.records import MOST_IMAGES, ImageFormat, Numerics, Precision, Priority, Record, ShardSize
from contract.suggest import nearest


@dataclass(frozen=True)
class Cli:
    """How the command line spells a field, where `--field-name` with the field's own help is not enough."""

    flag: str = ""
    metavar: str = ""
    help: str = ""
    argument: bool = False
    """A positional argument, in the order of the fields."""
    env: str = ""
    """The environment variable that replaces the field's default."""
    suffix: str = ""
    """Written behind the number, as the `x` of `20x`."""
    most: int | None = None
    """The largest number, where the field also takes a word."""
    lines_of_file: bool = False
    """The command line names a file; the option is its lines."""


# Groups of options that several commands, or a command and its spec, share


class Arithmetic(Record):
    """Options of jobs that run a model."""

    precision: Precision = Field("auto", description="Arithmetic of the model; auto: the fastest the worker has.")


class PromisedBytes(Record):
    """Options of jobs whose output must not depend on which worker computes it."""

    numerics: Numerics = Field(
        "one", description="one: all shards on one kind of device, in one precision; any: on whatever worker is free."
    )


class EarlierLabels(Record):
    """Options of jobs whose source may be `job:ID`, the labels of an earlier job."""

    min_score: float = Field(
        0.0, ge=0, le=1, description="With job:ID or watch:NAME, use only labels with at least this score."
    )


class Share(Record):
    """Which part of the workers' slots a job gets beside others."""

    priority: Priority = Field(
        "normal", description="Class of the job. Each gets twenty times the slots of the one below, and none starves."
    )
    weight: float = Field(
        1.0, ge=0.01, le=100, description="Share among the owner's jobs of one priority; 3: three times that of 1."
    )
    max_slots: int = Field(0, ge=0, description="Shards of the job that run at once, at most; 0: any number.")


class EveryJob(Share):
    """Options of every job."""

    keep_days: float | None = Field(
        None, ge=0, description="Delete the job this long after its end. Default: IMAGEMILL_KEEP_DAYS."
    )
    webhook: Annotated[str | None, Cli(metavar="URL")] = Field(
        None,
        max_length=2048,
        description="Post the end of the job here, signed: a URL, or an id that `imagemill webhooks list` shows.",
    )


class ClassifyFields(Arithmetic, EveryJob):
    model: Annotated[str, Cli(metavar="NAME")] = Field(
        description="`name`, `name@version` or `name@alias`; `imagemill models list` shows them."
    )
    top_k: int = Field(5, ge=1, le=1000, description="Labels per image.")
    embed: bool = Field(False, description="Add the embedding of each image to its row.")
    shard_size: Annotated[ShardSize, Cli(env="IMAGEMILL_SHARD_SIZE", most=MOST_IMAGES)] = Field(
        "auto",
        description=f"Images per shard, at most {MOST_IMAGES:,}; auto: as many as the slowest live worker labels in "
        "about 10 s.",
    )
    max_errors: str = Field(
        "5%", description="Fail the job when more images fail: a count (50) or a share (1%); 100%: never fail it."
    )

    @field_validator("shard_size")
    @classmethod
    def _bounded(cls, value: ShardSize) -> ShardSize:
        if value != "auto" and not 1 <= value <= MOST_IMAGES:
            raise ValueError(f"{value} is no size of a shard; give a number from 1 to {MOST_IMAGES}, or auto")
        return value

    @field_validator("max_errors")
    @classmethod
    def _budget(cls, value: str) -> str:
        if not re.fullmatch(r"\d+|\d{1,3}(\.\d+)?%", value) or (value[-1] == "%" and float(value[:-1]) > 100):
            raise ValueError(f"{value!r} is neither a count such as 50 nor a share such as 1%")
        return value


class TrainFields(EarlierLabels, PromisedBytes, EveryJob):
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Name of the model; each training publishes its next version."
    )
    labels: Annotated[
        tuple[str, ...], Cli(lines_of_file=True, help="File with the class names in their order, one per line.")
    ] = Field((), description="Class names in their order; empty: those of the data.")
    start: Annotated[str | None, Cli("--from", metavar="NAME@V")] = Field(
        None, description="Start from the weights of this model, of the same family."
    )
    half: bool = Field(False, description="Publish the weights in half precision (fp16), which halves their size.")


class EvaluateFields(Arithmetic, EarlierLabels, EveryJob):
    model: Annotated[str, Cli(argument=True)] = Field(description="`name`, `name@version` or `name@alias`.")
    features: Annotated[str | None, Cli(metavar="CLASSIFIER")] = Field(
        None, description="For a generator: the classifier whose features are compared."
    )
    count: int = Field(0, ge=0, description="For a generator: images to generate; 0: as many as there are real ones.")
    cas_epochs: int = Field(
        0, ge=0, description="For a generator: epochs of the classifiers behind the accuracy score; 0: no score."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="For a generator: seed of images and classifiers.")


class ImageFields(Arithmetic, PromisedBytes, EveryJob):
    """Options of every job that makes images."""

    model: Annotated[str, Cli(metavar="GENERATOR")] = Field(
        description="Generator: `name`, `name@version` or `name@alias`."
    )
    size: int = Field(0, ge=0, le=4096, description="Side of the images in pixels; 0: the generator's own.")
    image_format: ImageFormat = Field("png", description="File format of the images.")
    shard_size: int = Field(1024, ge=1, le=16384, description="Images per shard, about.")


class SampledFields(ImageFields):
    """Options of jobs that draw their latents."""

    truncation: Annotated[float | None, Cli(metavar="X")] = Field(
        None, gt=0, description="Keep latents within ±X: better images, less variety. Default: no limit."
    )


class ReconstructFields(Record):
    count: int | None = Field(
        None, ge=1, description="Images in all, spread evenly over the classes; with --reconstruct: only the first."
    )


class InterpolateFields(Record):
    steps: int = Field(10, ge=2, le=10_000, description="With --interpolate: images, both ends included.")


class SynthesizeFields(SampledFields):
    gate: Annotated[str, Cli(metavar="CLASSIFIER")] = Field(
        description="Classifier of the same classes that judges each candidate."
    )
    min_score: float = Field(0.9, ge=0, le=1, description="Score that the gate must give the intended class.")
    dedup: Annotated[float | None, Cli(metavar="D")] = Field(
        None, gt=0, description="Reject candidates nearer than this to an accepted image, e.g. 0.0005. Default: keep."
    )
    copy_distance: float = Field(
        0.0002, gt=0, description="With --away-from: a candidate nearer than this to one of its images is a copy."
    )
    max_attempts: Annotated[int, Cli(suffix="x")] = Field(
        20, ge=1, description="Candidates to make, at most, per image wanted."
    )


class VerifyFields(PromisedBytes, EveryJob):
    sample: int = Field(64, ge=1, description="Images to generate again, spread evenly over those accepted.")


# The commands


class JobOptions(Record):
    """The options of one command that makes a job."""

    command: ClassVar[str]
    schedulable: ClassVar[bool] = True


class _Destination(Record):
    to: Annotated[str | None, Cli(metavar="s3://…")] = Field(
        None, description="s3:// prefix for the results. Default: the job's own folder in the bucket."
    )


class _Seed(Record):
    seed: Annotated[int | Literal["tick"] | None, Cli(most=2**32 - 1)] = Field(
        None,
        description="Seed of the latents: a number, or, in a schedule, `tick` for another one at each tick. "
        "Default: 0; in a schedule, tick.",
    )

    @field_validator("seed")
    @classmethod
    def _bounded(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, int) and not 0 <= value < 2**32:
            raise ValueError(f"{value} is not a seed; give a number from 0 to {2**32 - 1}")
        return value


class _ClassNames(Record):
    classes: Annotated[tuple[str, ...], Cli("--class", metavar="NAME")] = Field(
        (), description="Class to generate; repeatable. Default: all."
    )


class ClassifyOptions(ClassifyFields, _Destination, JobOptions):
    command = "classify"

    source: Annotated[str | Path, Cli(argument=True)]


class _EveryKeywords(TypedDict, total=False):
    priority: Priority
    weight: float
    max_slots: int
    keep_days: float | None
    webhook: str | None


class ClassifyKeywords(_EveryKeywords, total=False):
    model: Required[str]
    top_k: int
    embed: bool
    precision: Precision
    shard_size: ShardSize
    max_errors: str
    to: str | None


class WatchOptions(ClassifyOptions):
    command = "watch"
    schedulable = False  # it goes on by itself

    name: Annotated[str, Cli(argument=True)]
    every: Annotated[str, Cli(metavar="TIME")] = Field(
        "5s", description="Time between two looks at the prefix, and so the age of a shard at most: 500ms, 5s, 2m."
    )
    start: Annotated[Literal["beginning", "now"], Cli("--from")] = Field(
        "beginning", description="Label what is there already, or only what comes."
    )
    overwrites: Literal["ignore", "again"] = Field(
        "ignore", description="Label an object once, or again when it is overwritten."
    )
    archive: Annotated[str | None, Cli(metavar="S3URI")] = Field(
        None, description="Move what is labelled to this prefix once its segment has ended; needs --overwrites again."
    )
    then: Annotated[str | None, Cli(metavar="SCHEDULE")] = Field(
        None, description="Start the command of this schedule whenever a segment has succeeded."
    )
    delta: bool = Field(False, description="Make the table of its rows a Delta table too: a transaction a segment.")
    max_errors: str = Field(
        "100%", description="Fail a segment's job when more images fail: a count (50) or a share (1%); 100%: never."
    )


class WatchKeywords(ClassifyKeywords, total=False):
    every: str
    delta: bool
    then: str | None
    start: Literal["beginning", "now"]
    overwrites: Literal["ignore", "again"]
    archive: str | None


class TrainOptions(TrainFields, JobOptions):
    command = "train"

    family: Annotated[str, Cli(argument=True)] = Field(description="`cnn`, `rnn`, `gan` or `vae`.")
    source: Annotated[tuple[str | Path, ...], Cli("--data", metavar="SOURCE")] = Field(
        min_length=1, description="Labelled images; see above. Repeatable: several sources, one behind the other."
    )
    epochs: int | None = Field(None, ge=1, description="Passes over the data. Default: the recipe's.")
    settings: Annotated[tuple[str, ...], Cli("--set", metavar="KEY=VALUE")] = Field(
        (), description="Change a value of the family's recipe; repeatable."
    )

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str | Path) else value


class TrainKeywords(_EveryKeywords, total=False):
    name: Required[str]
    epochs: int | None
    settings: Sequence[str]
    labels: Sequence[str]
    start: str | None
    min_score: float
    half: bool
    numerics: Numerics


class EvaluateOptions(EvaluateFields, JobOptions):
    command = "evaluate"

    source: Annotated[str | Path, Cli("--data", metavar="SOURCE")] = Field(
        description="Labelled images, as `imagemill train` takes them."
    )


class EvaluateKeywords(_EveryKeywords, total=False):
    precision: Precision
    min_score: float
    features: str | None
    count: int
    cas_epochs: int
    seed: int


class _ImageKeywords(_EveryKeywords, total=False):
    classes: Sequence[str]
    seed: int | Literal["tick"] | None
    truncation: float | None
    size: int
    image_format: ImageFormat
    precision: Precision
    numerics: Numerics
    shard_size: int
    to: str | None


class GenerateOptions(
    _Seed, ReconstructFields, InterpolateFields, _ClassNames, SampledFields, _Destination, JobOptions
):
    command = "generate"

    reconstruct: Annotated[str | Path | None, Cli(metavar="SOURCE")] = Field(
        None, description="Encode labelled images and decode them again. Takes a VAE."
    )
    interpolate: Annotated[tuple[str | Path, str | Path] | None, Cli(metavar="A B")] = Field(
        None, description="Generate images between two images of the same --class. Takes a VAE."
    )


class GenerateKeywords(_ImageKeywords, total=False):
    count: int | None
    reconstruct: str | Path | None
    interpolate: Sequence[str | Path] | None
    steps: int


class SynthesizeOptions(_Seed, _ClassNames, SynthesizeFields, _Destination, JobOptions):
    command = "synthesize"

    extend: Annotated[str | None, Cli(metavar="DATASET")] = Field(
        None,
        description="Add the images to this dataset of the bucket as its next version, without near-duplicates of what "
        "it holds; --dedup is then 0.0005 unless given.",
    )

    per_class: int | None = Field(
        None,
        ge=1,
        description="Images of each class to accept; with --balance, images that each class is to have in all. Needed "
        "without --balance.",
    )
    balance: Annotated[str | None, Cli(metavar="watch:NAME")] = Field(
        None,
        description="Fill each class up to the size of the largest, counting what this watch has labelled and what the "
        "dataset of --extend holds.",
    )
    away_from: Annotated[str | Path | None, Cli(metavar="SOURCE")] = Field(
        None, description="Reject copies of these images, e.g. the training data."
    )

    @field_validator("balance")
    @classmethod
    def _watch(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"watch:[a-z0-9][a-z0-9-]{0,31}", value):
            raise ValueError(f"{value!r} names no watch; write it as watch:NAME")
        return value


class SynthesizeKeywords(_ImageKeywords, total=False):
    gate: Required[str]
    per_class: int | None
    balance: str | None
    min_score: float
    dedup: float | None
    extend: str | None
    away_from: str | Path | None
    copy_distance: float
    max_attempts: int


class VerifyOptions(VerifyFields, JobOptions):
    command = "verify"
    schedulable = False  # it verifies one job, which does not change

    made: Annotated[str, Cli(argument=True, metavar="JOB")] = Field(
        description="A job that made images, or `dataset:NAME[@VERSION]`."
    )


class VerifyKeywords(_EveryKeywords, total=False):
    sample: int
    numerics: Numerics


COMMANDS: dict[str, type[JobOptions]] = {
    model.command: model
    for model in (ClassifyOptions, TrainOptions, EvaluateOptions, GenerateOptions, SynthesizeOptions, VerifyOptions)
}
"""The option model of each command that makes a job."""
SCHEDULABLE = tuple(name for name, model in COMMANDS.items() if model.schedulable)
"""The commands that a schedule can repeat."""

_NOT_GIVEN: tuple[Any, ...] = (None, (), [])

Options = TypeVar("Options", bound=JobOptions)


def parse_options(model: type[Options], values: Mapping[str, Any]) -> Options:
    """Return the checked options; None, and an empty list, leave an option at its default.

    Raises InvalidInput for the first option that is missing, unknown or out of bounds, spelled as on the command line.
    """
    try:
        return model.model_validate({name: value for name, value in values.items() if value not in _NOT_GIVEN})
    except ValidationError as error:
        raise InvalidInput(_complaint(model, error)) from None


def check_share(values: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless these can be parts of a job's share of the slots, one of them at least."""
    if not values:
        raise InvalidInput("Say what to set: --priority, --weight or --max-slots.")
    try:
        Share.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, said = str(first["loc"][0]), str(first["msg"]).removeprefix("Input ")
        raise InvalidInput(f"{spelling(Share, name)} {first['input']!r}: {said}.") from None


def cli_of(field: FieldInfo) -> Cli:
    """Return how the command line spells a field."""
    return next((mark for mark in field.metadata if isinstance(mark, Cli)), Cli())


def spelling(model: type[Record], name: str) -> str:
    """Return the field `name` as the command line spells it: `--top-k`, `SOURCE`."""
    cli = cli_of(model.model_fields[name])
    if cli.argument:
        return cli.metavar or name.upper()
    return cli.flag or f"--{name.replace('_', '-')}"


def _complaint(model: type[JobOptions], error: ValidationError) -> str:
    first = error.errors()[0]
    name, help = str(first["loc"][0]), f"`imagemill {model.command} --help` lists the options."
    if first["type"] == "extra_forbidden":
        near = nearest(name, model.model_fields, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{model.command} has no option {name!r}; {hint}{help}"
    if first["type"] == "missing":
        return f"{model.command} needs {spelling(model, name)}; {help}"
    said = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    value = "" if first["type"] == "value_error" else f" {first['input']!r}"
    return f"{spelling(model, name)}{value}: {said}."
