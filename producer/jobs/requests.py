"""What a command asks for: its arguments as the fields of a spec, with models as they were typed.

The one place that knows which arguments a command has. `Client` makes a job of a request at once, and
`imagemill schedule` a template; so a new command can be scheduled when it has a function here and a line in `REQUESTS`.
The arguments are named as those of the command line are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from contract.backend.objects import ObjectStore
from contract.data.image_index import ImageFormat
from contract.errors import InvalidInput, InvalidSource
from contract.jobs.kinds import kind_of
from contract.jobs.specs import Classify, Evaluate, Generate, Interpolate, Reconstruct, Synthesize, Train, Verify
from contract.jobs.templates import Template, encoder
from contract.models.recipes import RnnRecipe, make_recipe
from contract.models.registry import Model, Registry
from contract.records import Precision
from contract.settings import Settings
from producer.sources import images, labelled
from producer.sources.images import Pair, Remote, Resolved

S = TypeVar("S", Classify, Train, Evaluate, Generate, Synthesize, Reconstruct, Interpolate, Verify)


@dataclass(frozen=True)
class Request(Generic[S]):
    """What a spec of `kind` is made of, but its id and its source; `found` is where the images are, if it takes any."""

    kind: type[S]
    found: Resolved | None
    fields: dict[str, Any]
    to: str | None = None
    place: str = "source"
    """The field of the spec that `found` goes to."""

    @property
    def name(self) -> str:
        return str(self.kind.model_fields["kind"].default)


def classify(
    store: ObjectStore,
    settings: Settings,
    source: str | Path,
    *,
    model: str,
    top_k: int = 5,
    embed: bool = False,
    precision: Precision = "auto",
    shard_size: int | None = None,
    max_errors: str = "100%",
    to: str | None = None,
) -> Request[Classify]:
    """What `imagemill classify` asks for; raises InvalidSource."""
    fields = {
        "model": model,
        "top_k": top_k,
        "embed": embed,
        "precision": precision,
        "shard_size": shard_size or settings.shard_size,
        "max_errors": max_errors,
    }
    return Request(Classify, images.resolve(str(source), store, _frames(store, model, "classify")), fields, to)


def train(
    store: ObjectStore,
    _: Settings,
    family: str,
    source: str | Path,
    *,
    name: str,
    epochs: int | None = None,
    settings: Sequence[str] = (),
    labels: Sequence[str] = (),
    start: str | None = None,
    min_score: float = 0.0,
    half: bool = False,
) -> Request[Train]:
    """What `imagemill train` asks for; raises InvalidInput (an option) and what `labelled.resolve` raises."""
    recipe = make_recipe(family, [*settings, *([f"epochs={epochs}"] if epochs is not None else [])])
    fields = {
        "name": name,
        "recipe": recipe,
        "labels": tuple(labels),
        "start": start,
        "min_score": min_score,
        "half": half,
    }
    frames = recipe.frames if isinstance(recipe, RnnRecipe) else 0
    return Request(Train, labelled.resolve(str(source), store, frames), fields)


def evaluate(
    store: ObjectStore,
    _: Settings,
    model: str,
    source: str | Path,
    *,
    precision: Precision = "auto",
    min_score: float = 0.0,
    features: str | None = None,
    count: int = 0,
    cas_epochs: int = 0,
    seed: int = 0,
) -> Request[Evaluate]:
    """What `imagemill evaluate` asks for; raises what `labelled.resolve` raises."""
    fields = {
        "model": model,
        "precision": precision,
        "min_score": min_score,
        "features": features,
        "count": count,
        "cas_epochs": cas_epochs,
        "seed": seed,
    }
    return Request(Evaluate, labelled.resolve(str(source), store, _frames(store, model, "evaluate")), fields)


def generate(
    store: ObjectStore,
    settings: Settings,
    model: str,
    *,
    count: int | None = None,
    reconstruct: str | Path | None = None,
    interpolate: Sequence[str | Path] | None = None,
    steps: int | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
    truncation: float | None = None,
    size: int = 0,
    image_format: ImageFormat = "png",
    precision: Precision = "auto",
    shard_size: int = 1024,
    to: str | None = None,
) -> Request[Any]:
    """What `imagemill generate` asks for, a Generate, a Reconstruct or an Interpolate; classes by name.

    Raises InvalidInput for options that do not go together, and what `labelled.resolve` raises.
    """
    fields = {
        "model": model,
        "size": size,
        "image_format": image_format,
        "precision": precision,
        "shard_size": shard_size,
    }
    drawn = {"--seed": seed, "--truncation": truncation}
    if reconstruct is not None:
        what = "--reconstruct encodes the images of a source, each of its own class, and draws nothing"
        _leave_out(what, {"--interpolate": interpolate, "--steps": steps, "--class": classes, **drawn})
        known = _encoder(store, model, "reconstruct").labels
        found = labelled.resolve(str(reconstruct), store, 0, known=known)
        return Request(Reconstruct, found, {**fields, "count": count}, to)
    if interpolate is not None:
        what = "--interpolate makes --steps images on the way from one to another, and draws nothing"
        _leave_out(what, {"--count": count, **drawn})
        _encoder(store, model, "interpolate")
        if len(set(classes)) != 1:
            # A model knows its classes one by one: what lies between two of them, no label would be true of.
            raise InvalidInput(
                f"--interpolate goes from one image to another of the same class, and {len(set(classes)) or 'none'} "
                f"{'is' if not classes else 'are'} given; name the class of both with one --class."
            )
        ends = images.resolve_pair([str(end) for end in interpolate], store, settings.max_image_bytes)
        told = {**fields, "classes": tuple(set(classes)), **({} if steps is None else {"steps": steps})}
        return Request(Interpolate, ends, told, to, place="ends")
    _leave_out("--steps are those of --interpolate", {"--steps": steps})
    if count is None:
        raise InvalidInput("--count is missing; say how many images, or name some with --reconstruct or --interpolate.")
    fields |= {"count": count, "classes": tuple(classes), "seed": seed, "truncation": truncation}
    return Request(Generate, None, fields, to)


def synthesize(
    store: ObjectStore,
    _: Settings,
    model: str,
    *,
    gate: str,
    per_class: int,
    classes: Sequence[str] = (),
    min_score: float = 0.9,
    dedup: float | None = None,
    away_from: str | Path | None = None,
    copy_distance: float = 0.0002,
    max_attempts: int = 20,
    seed: int = 0,
    truncation: float | None = None,
    size: int = 0,
    image_format: ImageFormat = "png",
    precision: Precision = "auto",
    shard_size: int = 1024,
    to: str | None = None,
) -> Request[Synthesize]:
    """What `imagemill synthesize` asks for; classes by name. Raises what `labelled.resolve` raises."""
    fields = {
        "model": model,
        "gate": gate,
        "per_class": per_class,
        "classes": tuple(classes),
        "min_score": min_score,
        "dedup": dedup,
        "copy_distance": copy_distance,
        "max_attempts": max_attempts,
        "seed": seed,
        "truncation": truncation,
        "size": size,
        "image_format": image_format,
        "precision": precision,
        "shard_size": shard_size,
    }
    found = labelled.resolve(str(away_from), store, 0) if away_from is not None else None
    return Request(Synthesize, found, fields, to, place="away_from")


REQUESTS: dict[str, Callable[..., Request[Any]]] = {
    "classify": classify,
    "train": train,
    "evaluate": evaluate,
    "generate": generate,
    "synthesize": synthesize,
}
"""Every command that makes a job, and so can be scheduled."""


def make_request(command: str, arguments: Mapping[str, Any], store: ObjectStore, settings: Settings) -> Request[Any]:
    """What a command asks for with these arguments; raises InvalidInput for a command or an argument that is none."""
    function = REQUESTS[check_command(command)]
    try:
        call = inspect.signature(function).bind(store, settings, **arguments)
    except TypeError as error:
        raise InvalidInput(f"{command} cannot be called so: {error}; `imagemill {command} --help` shows how.") from None
    return function(*call.args, **call.kwargs)


def check_command(command: str) -> str:
    """The command, where it makes jobs; raises InvalidInput."""
    if command not in REQUESTS:
        raise InvalidInput(f"{command!r} makes no job that can be scheduled; schedule one of {', '.join(REQUESTS)}.")
    return command


def _encoder(store: ObjectStore, model: str, kind: str) -> Model:
    """The model, before its images are looked at; raises InvalidInput where it has no encoder."""
    record = kind_of(kind)
    return encoder(Registry(store).get(model, tasks=record.model_tasks), record)


def _leave_out(why: str, options: Mapping[str, object]) -> None:
    """Raises InvalidInput for the first of these that is given: what has no effect is a mistake."""
    for option, value in options.items():
        if value not in (None, (), [], 0):
            raise InvalidInput(f"{why}; leave {option} out.")


def make_template(request: Request[Any]) -> Template:
    """What a schedule keeps of a request; raises InvalidSource where only this machine has the images."""
    fields = {"kind": request.name, **request.fields}
    if isinstance(request.found, Remote):
        found = request.found
        fields[request.place] = {"kind": found.kind, "uri": found.uri, "label": found.label}
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
    """What of it is on this machine, as it was typed."""
    if isinstance(found, Pair):
        return next(label for one, label in zip(found.images, found.labels, strict=True) if isinstance(one, Path))
    return found.label


def _frames(store: ObjectStore, model: str, command: str) -> int:
    """How many frames of a sequence the model looks at, 0 where it takes images; raises what `Registry.get` raises."""
    return Registry(store).get(model, tasks=kind_of(command).model_tasks).frames
