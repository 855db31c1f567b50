"""A job before it has an id: the fields of its spec, with models as they were typed.

A schedule keeps a template and makes a job of it at each tick. A nightly job that names `flowers` or `flowers@stable`
uses the version that the name stands for that night; one that names `flowers@3` always uses that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, ValidationError

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.datasets import balance, extending
from contract.datasets.records import Extend
from contract.datasets.versions import Datasets
from contract.errors import InvalidInput
from contract.jobs.destinations import check_output
from contract.jobs.kinds import JobKind, kind_of
from contract.jobs.reviews import sets
from contract.jobs.specs import Source, Spec, parse_spec
from contract.keys.jobs import JobKeys
from contract.models.families import ENCODERS
from contract.models.registry import Model, Registry
from contract.records import Record
from contract.watches.segments import labelled_segments

TICK = "tick"
"""The seed of a template whose jobs each have their own."""


class Template(Record):
    """A spec without its id, its output, and what is read from its models."""

    spec: dict[str, Any] = Field(description="The fields of the spec; `model` and `start` as they were typed.")
    to: str | None = Field(default=None, description="s3:// prefix for results; None: the folder of the job.")

    @property
    def kind(self) -> str:
        return str(self.spec["kind"])

    def taken_over(self, owner: str) -> Template:
        """Return what a new owner's jobs are made of: no webhook of the earlier owner is told of them."""
        spec = {name: value for name, value in self.spec.items() if name != "webhook"}
        return self.model_copy(update={"spec": spec | ({"owner": owner} if "owner" in spec else {})})

    @property
    def model(self) -> str:
        """The model that the job runs, or the name that it trains."""
        return str(self.spec.get("model") or self.spec.get("name") or "")

    @property
    def source(self) -> str:
        """The source, as typed."""
        if "ends" in self.spec:
            return " to ".join(end["label"] for end in self.spec["ends"])
        source = self.spec.get("source") or self.spec.get("away_from")
        if source:
            return str(source["label"])
        seed = self.spec.get("seed", 0)
        return "another seed at each tick" if seed == TICK else f"seed {seed}"


def pin(fields: Mapping[str, Any], kind: str, registry: Registry) -> dict[str, Any]:
    """Return the fields of a spec with each model pinned to its current version.

    Raises UnknownModel, and InvalidInput for a model that does not do what the job needs.
    """
    pinned = dict(fields)
    record = kind_of(kind)
    if record.model_tasks:
        model = registry.get(fields["model"], tasks=record.model_tasks)
        pinned |= {"model": model.ref, "weights_sha256": model.weights.sha256}
        if "frames" in record.spec.model_fields:
            pinned["frames"] = model.frames
        if "top_k" in fields:
            pinned["top_k"] = min(fields["top_k"], len(model.labels))
        if record.encoder_option is not None:
            encoder(model, record)
        if "classes" in fields:
            pinned["classes"] = model.class_numbers(fields["classes"])
        if record.judge is not None:
            pinned |= _judge(model, fields, record.judge, registry)
    if fields.get("start"):
        start, family = registry.get(fields["start"]), _family(fields)
        if start.family != family:
            raise InvalidInput(f"{start.ref} is a {start.family}; a {family} cannot begin with its weights.")
        pinned["start"] = start.ref
    return pinned


def encoder(model: Model, kind: JobKind) -> Model:
    """Return the model if it has the encoder that jobs of this kind need; raises InvalidInput."""
    if model.family not in ENCODERS:
        raise InvalidInput(
            f"{model.ref} is a {model.family} and has no encoder, which {kind.encoder_option} needs; name a model of "
            f"the family {' or '.join(sorted(ENCODERS))}."
        )
    return model


def _judge(model: Model, fields: Mapping[str, Any], place: str, registry: Registry) -> dict[str, Any]:
    """Return the pinned classifier that judges a generator; nothing if `model` is a classifier itself."""
    option, ref = f"--{place}", fields.get(place)
    if model.task != "generate":
        if ref is not None:
            raise InvalidInput(f"{model.ref} is a classifier, which is evaluated by labels alone; leave {option} out.")
        return {}
    if ref is None:
        raise InvalidInput(
            f"{model.ref} is a generator, which is judged by a classifier of the same classes; name one with {option}."
        )
    judge = registry.get(ref, tasks=("classify",))
    if missing := [label for label in model.labels if label not in judge.labels]:
        raise InvalidInput(
            f"{judge.ref} does not know the class {missing[0]!r} of {model.ref}; name a classifier of the same classes "
            f"with {option}."
        )
    return {place: judge.ref, **({"gate_sha256": judge.weights.sha256} if place == "gate" else {})}


def pin_source(source: Source, store: ObjectStore, segment: tuple[str, str] | None = None) -> Source:
    """Return the source with a dataset at the version that it has now, reviews at the set that they make, and the
    segments of a watch that have succeeded.

    `segment` is the name of a watch and the job of the last of its segments that counts; by default all count. Raises
    UnknownDataset, and InvalidSource for a watch without such a segment or a job without reviews.
    """
    if source.parts:
        pinned = [pin_source(part, store, segment) for part in source.parts]
        each = tuple(dict.fromkeys(one for part in pinned for one in part.each))
        return source.model_copy(update={"label": Source.several(pinned).label, "parts": each})
    if source.kind == "segment":
        name, _, which = source.uri.partition("@")
        until = segment[1] if segment is not None and segment[0] == name else None
        jobs = labelled_segments(store, name, newest=bool(which), until=until)
        parts = [Source(kind="job", uri=job, label=f"job:{job}") for job in jobs]
        return parts[0] if which else Source.several(parts).model_copy(update={"label": source.label})
    if source.kind == "review":
        ref = sets.parse_ref(source.uri)
        assert ref is not None, "whoever resolved the source looked"
        return source.model_copy(update={"uri": sets.pin(store, ref).text})
    if source.kind != "dataset":
        return source
    number = Datasets(store).resolve(source.uri)
    return source.model_copy(update={"uri": f"{source.uri.partition('@')[0]}@{number}"})


def extension(fields: Mapping[str, Any], id: str, store: ObjectStore, at: datetime) -> Extend:
    """Return the version that a job makes of the dataset that it extends; raises what `extending.pin` raises."""
    return extending.pin(store, fields["extend"], id, Registry(store).get(fields["model"]), fields, at)


def balanced(fields: Mapping[str, Any], store: ObjectStore) -> dict[str, Any]:
    """Return the fields that say how many images of each class a job makes; raises what `balance.pin` raises."""
    return balance.pin(store, fields["balance"], Registry(store).get(fields["model"]), fields)


def seed_of(id: str) -> int:
    """Return the seed that `tick` stands for: the first 32 bits of the SHA-256 of the job's id.

    The id of a tick's job names the schedule and the tick, so whoever submits it draws the same images, and
    `printf nightly-20261125t0200 | sha256sum | cut -c1-8` prints it in hex.
    """
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big")


def output(keys: JobKeys, bucket: str, to: str | None) -> str:
    """Return the s3:// prefix of a job's results, with a trailing slash: below `to`, or in the job's own folder.

    Raises InvalidInput for a prefix that is reserved or oddly spelled.
    """
    if to is None:
        return f"s3://{bucket}/{keys.root}out/"
    check_output(to, bucket)
    bucket, prefix = parse_s3(to)
    return f"s3://{bucket}/{prefix.rstrip('/')}/{keys.id}/" if prefix.strip("/") else f"s3://{bucket}/{keys.id}/"


def fill(
    template: Template,
    *,
    id: str,
    store: ObjectStore,
    at: datetime | None = None,
    segment: tuple[str, str] | None = None,
) -> Spec:
    """Return the spec of the job `id`, with the current versions of its models and datasets.

    `at` is the tick, by default now; `segment` is the last one that `watch:NAME` stands for, as in `pin_source`. Raises
    what `pin`, `pin_source`, `extending.pin` and `balance.pin` raise.
    """
    fields = pin(template.spec, template.kind, Registry(store))
    for place in ("source", "away_from"):
        if isinstance(fields.get(place), dict):
            fields[place] = pin_source(Source.model_validate(fields[place]), store, segment)
    if fields.get("seed") == TICK:
        fields["seed"] = seed_of(id)
    if fields.get("extend"):
        fields["extend"] = extension(fields, id, store, at or datetime.now(UTC))
    if fields.get("balance"):
        fields |= balanced(fields, store)
    try:
        return parse_spec({**fields, "id": id, "output": output(JobKeys(id), store.bucket, template.to)})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{id} cannot be made of its template ({where}: {first['msg']}); add it again.") from error


def _family(fields: Mapping[str, Any]) -> str:
    recipe = fields["recipe"]
    return str(recipe["family"] if isinstance(recipe, Mapping) else recipe.family)
