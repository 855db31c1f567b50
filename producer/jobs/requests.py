"""Turns the options of a command into the fields of a spec: finds images, refuses options that exclude each other.

What a single option may be is said once, in `contract.jobs.options`. `Client` makes a job of a request at once, and a
schedule keeps it as a template; models stay as they were typed until then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from contract.backend.objects import ObjectStore
from contract.datasets.versions import Datasets, name_of
from contract.errors import InvalidInput, InvalidSource, JobConflict
from contract.jobs import lifecycle
from contract.jobs.ends import read_end
from contract.jobs.kinds import kind_of
from contract.jobs.options import (
    COMMANDS,
    SCHEDULABLE,
    ClassifyOptions,
    EvaluateOptions,
    EveryJob,
    GenerateOptions,
    JobOptions,
    SynthesizeOptions,
    TrainOptions,
    VerifyOptions,
    WatchOptions,
    spelling,
)
from contract.jobs.specs import (
    AnySpec,
    Classify,
    Evaluate,
    Generate,
    Interpolate,
    Reconstruct,
    SampledSpec,
    Synthesize,
    Train,
    Verify,
)
from contract.jobs.templates import TICK, Template, encoder
from contract.models.families import make_recipe
from contract.models.recipes import RnnRecipe
from contract.models.registry import Model, Registry
from contract.settings import Settings
from contract.watches.record import folder_of, source_of
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints
from producer.sources import images, labelled
from producer.sources.images import Pair, Remote, Resolved

S = TypeVar("S", bound=AnySpec)


@dataclass(frozen=True)
class Request(Generic[S]):
    """The fields of a spec of `kind` but its id and its source; `found` is where the images are, if it takes any."""

    kind: type[S]
    found: Resolved | None
    fields: dict[str, Any]
    to: str | None = None
    place: str = "source"
    """The field of the spec that `found` goes to."""

    @property
    def name(self) -> str:
        return str(self.kind.model_fields["kind"].default)


def make_request(options: JobOptions, store: ObjectStore, settings: Settings) -> Request[Any]:
    """Return the request behind a command's options.

    Raises InvalidInput for options that do not go together, and InvalidSource, UnknownModel, UnknownJob or JobConflict
    for what they name.
    """
    request = _REQUESTS[options.command](options, store, settings)
    return replace(request, fields={**request.fields, **_webhook(options, store, settings)})


def _webhook(options: JobOptions, store: ObjectStore, settings: Settings) -> dict[str, Any]:
    """Return the id of the webhook that is named, registered if it is a new URL; nothing if none is.

    A spec holds no URL: it may be a password, and workers read specs.
    """
    if not isinstance(options, EveryJob) or not options.webhook:
        return {}
    return {"webhook": Endpoints(store).named(options.webhook, settings.owns_as, AddressPolicy.of(settings)).id}


def _classify(options: ClassifyOptions, store: ObjectStore, settings: Settings) -> Request[Classify]:
    fields = _shared(options, Classify)
    if "shard_size" not in options.model_fields_set:
        fields["shard_size"] = settings.shard_size
    frames = _frames(store, options.model, "classify")
    return Request(Classify, images.resolve(str(options.source), store, frames), fields, options.to)


def _train(options: TrainOptions, store: ObjectStore, settings: Settings) -> Request[Train]:
    Registry(store).owners.check(options.name, settings.owns_as)  # hours before the model would be refused
    epochs = [] if options.epochs is None else [f"epochs={options.epochs}"]
    recipe = make_recipe(options.family, [*options.settings, *epochs])
    frames = recipe.frames if isinstance(recipe, RnnRecipe) else 0
    found = labelled.resolve_all([str(source) for source in options.source], store, frames)
    _check_score(options, found)
    return Request(Train, found, {**_shared(options, Train), "recipe": recipe, "owner": settings.owns_as})


def _evaluate(options: EvaluateOptions, store: ObjectStore, _: Settings) -> Request[Evaluate]:
    frames = _frames(store, options.model, "evaluate")
    found = labelled.resolve(str(options.source), store, frames)
    _check_score(options, found)
    return Request(Evaluate, found, _shared(options, Evaluate))


def _generate(options: GenerateOptions, store: ObjectStore, settings: Settings) -> Request[Any]:
    if options.reconstruct is not None:
        return _reconstruct(options, store)
    if options.interpolate is not None:
        return _interpolate(options, store, settings)
    _leave_out(options, "--steps belongs to --interpolate", "steps")
    if options.count is None:
        raise InvalidInput("--count is missing; say how many images, or name some with --reconstruct or --interpolate.")
    return Request(Generate, None, _shared(options, Generate), options.to)


def _reconstruct(options: GenerateOptions, store: ObjectStore) -> Request[Reconstruct]:
    why = "--reconstruct encodes the images of a source, each with its own class, and draws nothing"
    _leave_out(options, why, "interpolate", "steps", "classes", "seed", "truncation")
    known = _encoder(store, options.model, "reconstruct").labels
    found = labelled.resolve(str(options.reconstruct), store, 0, known=known)
    return Request(Reconstruct, found, _shared(options, Reconstruct), options.to)


def _interpolate(options: GenerateOptions, store: ObjectStore, settings: Settings) -> Request[Interpolate]:
    why = "--interpolate makes --steps images between two others, and draws nothing"
    _leave_out(options, why, "count", "seed", "truncation")
    _encoder(store, options.model, "interpolate")
    classes = tuple(set(options.classes))
    if len(classes) != 1:
        # A model knows its classes one by one: no label would be true of an image between two of them.
        raise InvalidInput(
            f"--interpolate goes from one image to another of the same class, and {len(classes) or 'none'} "
            f"{'are' if classes else 'is'} given; name the class of both with one --class."
        )
    assert options.interpolate is not None, "the caller looked"
    ends = images.resolve_pair([str(end) for end in options.interpolate], store, settings.max_image_bytes)
    fields = {**_shared(options, Interpolate), "classes": classes}
    return Request(Interpolate, ends, fields, options.to, place="ends")


_EXTEND_DEDUP = 0.0005
"""The `--dedup` of a job that extends a dataset: with `fashion-cnn`, one in a hundred photos has another within it."""


def _synthesize(options: SynthesizeOptions, store: ObjectStore, settings: Settings) -> Request[Synthesize]:
    away = options.away_from
    found = labelled.resolve(str(away), store, 0) if away is not None else None
    fields = _shared(options, Synthesize)
    if options.balance is None and options.per_class is None:
        raise InvalidInput("--per-class is missing; say how many images of each class, or name a watch with --balance.")
    if options.balance is not None:
        fields["balance"] = options.balance.removeprefix(labelled.WATCH)
    if options.extend is not None:
        _leave_out(options, "The images of a dataset stay in the bucket, with their job", "to")
        datasets = Datasets(store)
        if datasets.find(options.extend) is not None:
            datasets.owned(options.extend, settings.owns_as)
        fields["dedup"] = _EXTEND_DEDUP if options.dedup is None else options.dedup
    return Request(Synthesize, found, fields, options.to, place="away_from")


def _verify(options: VerifyOptions, store: ObjectStore, _: Settings) -> Request[Verify]:
    ref = name_of(options.made)
    grown = Datasets(store).grown(ref) if ref is not None else None
    made = lifecycle.read_spec(store, options.made if grown is None else grown.newest.job)
    kind = kind_of(made)
    if kind.makes != "images":
        raise JobConflict(f"{made.id} generated nothing, its kind is {kind.name}; there is nothing to verify.")
    if not kind.seeded:
        raise JobConflict(
            f"{made.id} was made of other images ({made.source.label}), which its records do not hold; run its "
            "command again as a new job, and compare."
        )
    if read_end(store, made.id) is None:
        raise JobConflict(f"The job {made.id} has not ended; follow it to its end, then verify it.")
    model = Registry(store).get(made.model).ref
    pinned = {"job": made.id, "model": model, "weights_sha256": cast("SampledSpec", made).weights_sha256}
    if grown is not None:
        pinned["dataset"] = grown.ref
    return Request(Verify, None, {**_shared(options, Verify), **pinned})


_REQUESTS: dict[str, Callable[..., Request[Any]]] = {
    "classify": _classify,
    "train": _train,
    "evaluate": _evaluate,
    "generate": _generate,
    "synthesize": _synthesize,
    "verify": _verify,
}


def check_command(command: str) -> type[JobOptions]:
    """Return the option model of a command that can be scheduled; raises InvalidInput for another."""
    if command not in SCHEDULABLE:
        raise InvalidInput(f"{command!r} makes no job that can be scheduled; schedule one of {', '.join(SCHEDULABLE)}.")
    return COMMANDS[command]


def _shared(options: JobOptions, spec: type[AnySpec]) -> dict[str, Any]:
    """Return the options that are fields of the spec too, but for the images that they name."""
    names = options.__class__.model_fields.keys() & spec.model_fields.keys() - {"source", "away_from"}
    return options.model_dump(include=names)


def _encoder(store: ObjectStore, model: str, kind: str) -> Model:
    """Return the model; raises InvalidInput if it has no encoder, before any image is looked at."""
    record = kind_of(kind)
    return encoder(Registry(store).get(model, tasks=record.model_tasks), record)


def _leave_out(options: JobOptions, why: str, *names: str) -> None:
    """Raise InvalidInput for the first of these options that is given: what has no effect is a mistake."""
    for name in names:
        if name in options.model_fields_set:
            raise InvalidInput(f"{why}; leave {spelling(type(options), name)} out.")


def make_watch_template(options: WatchOptions, store: ObjectStore, settings: Settings) -> Template:
    """Return what the jobs of a watch are made of; raises what `make_request` raises for the model."""
    fields = _shared(options, Classify)
    if "shard_size" not in options.model_fields_set:
        fields["shard_size"] = settings.shard_size
    if frames := _frames(store, options.model, "classify"):
        raise InvalidInput(
            f"{options.model} labels sequences of up to {frames} frames, and a watch cannot know when one is complete; "
            "name a model of single images."
        )
    fields |= _webhook(options, store, settings)
    source = str(options.source)
    uri = source_of(source, folder_of(options.archive or ""))
    return Template(
        spec={"kind": "classify", **fields, "source": {"kind": "watch", "uri": uri, "label": source}}, to=options.to
    )


def make_template(request: Request[Any]) -> Template:
    """Return what a schedule keeps of a request; raises InvalidSource for images that only this machine has."""
    fields = {"kind": request.name, **request.fields}
    if kind_of(request.name).seeded and fields["seed"] is None:
        fields["seed"] = TICK
    if fields.get("extend") and fields["seed"] != TICK:
        raise InvalidInput(
            "--extend in a schedule needs another seed at each tick, or the same images would come again; leave --seed "
            "out."
        )
    if isinstance(request.found, Remote):
        fields[request.place] = request.found.as_source.model_dump()
    elif isinstance(request.found, Pair) and not request.found.files:
        ends = zip(request.found.images, request.found.labels, strict=True)
        fields[request.place] = [{"uri": str(uri), "label": label} for uri, label in ends]
    elif request.found is not None:
        raise InvalidSource(
            f"{_local(request.found)} is on this machine, and a schedule runs without it; copy it to the bucket, and "
            "name it as s3://bucket/prefix."
        )
    return Template(spec=fields, to=request.to)


def _local(found: Resolved) -> str:
    """Return the local input, as typed."""
    if isinstance(found, Pair):
        return next(label for one, label in zip(found.images, found.labels, strict=True) if isinstance(one, Path))
    return found.label


def _check_score(options: JobOptions, found: Resolved) -> None:
    """Raise InvalidInput for a least score where people gave the labels."""
    if isinstance(found, Remote) and found.kind == "review":
        _leave_out(options, "The labels of review:JOB are people's, which have no score", "min_score")


def _frames(store: ObjectStore, model: str, command: str) -> int:
    """Return how many frames the model takes, 0 for single images; raises what `Registry.get` raises."""
    return Registry(store).get(model, tasks=kind_of(command).model_tasks).frames
