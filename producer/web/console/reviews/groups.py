"""Accepting a group of labels at once: all of one label that are sure, or a cluster of images that are alike."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from contract.data.items import read_manifest
from contract.errors import ObjectNotFound
from contract.jobs.reviews import neighbours, verdicts
from contract.jobs.reviews.records import MANY, Batch, Named
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from contract.times import iso
from producer.jobs import groups
from producer.jobs.groups import Group
from producer.web.console.rendering import page
from producer.web.console.reviews.images import compared, reviewable
from producer.web.console.reviews.queues import Queues, Shared
from producer.web.owned import Owned, Review
from producer.web.problems import Problem
from producer.web.v1.jobs import Id

By: TypeAlias = Literal["label", "cluster"]
_NAME = re.compile(r"\d{13}-[0-9a-f]{8}")
_WITH_PICTURES = 20
"""Groups that show pictures; the others are a line each."""

AtLeast = Annotated[float, Query(ge=0, le=1)]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of groups to those of reviews."""

    @routes.get("/groups")
    def show_groups(
        request: Request,
        owned: Review,
        queues: Shared,
        id: Id,
        by: Annotated[By, Query()] = "label",
        at_least: AtLeast = 0.95,
        done: Annotated[str, Query(max_length=40)] = "",
    ) -> Response:
        status = reviewable(owned, id)
        note, again = compared(owned, queues, status) if by == "cluster" else ("", False)
        found = _groups(owned, queues, status, by, at_least)
        return page(
            request,
            "reviews/review_groups.html",
            job=status,
            by=by,
            at_least=at_least,
            groups=found,
            pictures=_pictures(owned, id, found[:_WITH_PICTURES]),
            note=note,
            again=again,
            **_accepted(owned, id, done),
        )

    @routes.post("/groups")
    def accept(
        owned: Review,
        queues: Shared,
        id: Id,
        name: Annotated[str, Form(max_length=2000)],
        digest: Annotated[str, Form(max_length=24)],
        by: Annotated[By, Form()] = "label",
        at_least: Annotated[float, Form(ge=0, le=1)] = 0.95,
    ) -> Response:
        """Accept the model's label for a group, if it is the group that was shown."""
        status = reviewable(owned, id)
        group = next(iter(_groups(owned, queues, status, by, at_least, name)), None)
        if group is None or group.digest != digest:
            raise Problem(409, "This group has changed since it was shown; look at it again.")
        what = f"{group.label}, at least {at_least:.2f} sure" if by == "label" else f"cluster {name}, {group.label}"
        batch = Batch(
            label=group.label,
            group=what,
            model=group.model,
            by=owned.token.reviewer,
            at=iso(time.time()) or "",
            images=tuple(group.taken),
        )
        named = verdicts.add_batch(owned.client.backend.store, id, batch)
        queues.gave(id, named)
        return _back(id, by, at_least, named.name)

    @routes.post("/groups/undo")
    def undo_group(
        owned: Review,
        queues: Shared,
        id: Id,
        done: Annotated[str, Form(max_length=40)],
        by: Annotated[By, Form()] = "label",
        at_least: Annotated[float, Form(ge=0, le=1)] = 0.95,
    ) -> Response:
        """Take back what was accepted at once."""
        reviewable(owned, id)
        if not _NAME.fullmatch(done):
            raise Problem(422, "This names no verdict; go on from a page of the console.")
        named = Named(done, MANY)
        verdicts.withdraw(owned.client.backend.store, id, named, by=owned.token.reviewer)
        queues.withdrew(id, named)
        return _back(id, by, at_least)


def _groups(
    owned: Owned, queues: Queues, status: Status, by: By, at_least: float, name: str | None = None
) -> list[Group]:
    """Return the groups, or the one that is named, with its images."""
    store = owned.client.backend.store
    reviewed = queues.reviewed(store, status.id)
    if by == "label":
        return groups.sure(store, status.id, at_least, reviewed, label=name)
    if name is not None and not re.fullmatch(r"\d{1,6}", name):
        return []
    table = neighbours.read(store, status.id, end=status.finished_at)
    if table is None:
        return []
    return groups.clusters(store, status.id, table, reviewed, cluster=None if name is None else int(name))


def _accepted(owned: Owned, id: str, done: str) -> dict[str, Any]:
    """Return what was accepted a moment ago, read from its verdict: nothing in an address is believed."""
    if _NAME.fullmatch(done):
        store = owned.client.backend.store
        with suppress(ObjectNotFound):
            named = Named(done, MANY)
            found = verdicts.read(store, id, named)
            if found[0].by == owned.token.reviewer and not verdicts.withdrawn(store, id, named):
                return {"done": done, "accepted": len(found), "label": found[0].label}
    return {"done": "", "accepted": 0, "label": ""}


def _pictures(owned: Owned, id: str, found: Sequence[Group]) -> dict[str, list[tuple[str, str, float]]]:
    """Return the pictures of each group by its name, the least certain first: ends of addresses, keys, scores."""
    keys, places = JobKeys(id), dict[tuple[int, str, str], int]()
    for shard in {shard for group in found for _, shard, _, _ in group.shown}:
        with suppress(ObjectNotFound):
            manifest = read_manifest(owned.client.backend.store.get(keys.manifest(shard)))
            places |= {(shard, item.key, item.uri): place for place, item in enumerate(manifest)}
    return {
        group.name: [
            (f"pictures/{shard}/{places[shard, key, uri]}", key, -score)
            for score, shard, key, uri in sorted(group.shown, reverse=True)
            if (shard, key, uri) in places
        ]
        for group in found
    }


def _back(id: str, by: By, at_least: float, done: str = "") -> Response:
    more = f"&done={done}" if done else ""
    return RedirectResponse(f"/console/jobs/{id}/review/groups?by={by}&at_least={at_least:g}{more}", 303)
