"""Replays: what a watch planned in a span of time becomes one classify job, with another model or version."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import cast

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput
from contract.jobs.specs import Classify
from contract.jobs.templates import fill
from contract.models.registry import Registry
from contract.watches.record import Watch
from contract.watches.replays import Replay, replayed


def make_replay(
    store: ObjectStore, watch: Watch, begin: datetime, end: datetime, *, model: str, now: datetime | None = None
) -> Classify:
    """Return the job that labels what a watch planned from `begin` until before `end` with `model`.

    Everything else is as in the segments of the watch. The same watch, span and version make the same id. Raises
    InvalidInput for a span that is empty or not past, UnknownModel, and InvalidSource if part of the span was deleted.
    """
    begin, end = (at.astimezone(UTC) for at in (begin, end))
    replay = Replay(watch.places, watch.name, watch.stamp, begin, end)
    if begin >= end:
        raise InvalidInput(
            f"The span begins at {begin:%Y-%m-%dT%H:%M:%SZ} and ends at {end:%Y-%m-%dT%H:%M:%SZ}, not after that; swap "
            "them."
        )
    if end > (now or datetime.now(UTC)):
        raise InvalidInput(
            f"The span ends at {end:%Y-%m-%dT%H:%M:%SZ}, which is not past, and the watch may plan more until then; "
            "leave the end out for now."
        )
    found = Registry(store).get(model, tasks=("classify",))
    if found.frames:
        raise InvalidInput(f"{found.ref} labels sequences, and a watch finds single images; name another model.")
    if next(replayed(store, replay), None) is None:
        raise InvalidInput(
            f"There is nothing to label in {replay.label}; `imagemill watch show {watch.name}` tells more."
        )
    digest = hashlib.sha256(f"{replay.uri} {found.ref}".encode()).hexdigest()
    fields = {
        **watch.template.spec,
        "model": found.ref,
        "source": {"kind": "replay", "uri": replay.uri, "label": replay.label},
    }
    template = watch.template.model_copy(update={"spec": fields})
    return cast("Classify", fill(template, id=f"{watch.name}-replay-{digest[:12]}", store=store))
