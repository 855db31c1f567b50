"""Reviewing a job's labels: the image of which the model was least sure, large, and a key for each answer.

The server remembers nothing of a reviewer: what was skipped, and what can be undone, travels with the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from contract.data.items import read_manifest
from contract.errors import JobConflict, ObjectNotFound, UnknownModel
from contract.jobs import lifecycle
from contract.jobs.reviews import agreement, verdicts
from contract.jobs.reviews.records import Named, verdict_of
from contract.jobs.status import Status
from contract.keys import JobKeys
from producer.jobs.doubts import By, Doubt
from producer.web.console.pages import page
from producer.web.console.queues import Queues, Show
from producer.web.jobs import Id
from producer.web.owned import Owned, Review
from producer.web.problems import Problem

_MOST_UNDO = 50
_NAMED = re.compile(r"([0-9a-f]{24})/(\d{13}-[0-9a-f]{8})")

Carried = Annotated[str, Form(max_length=4000)]


@dataclass(frozen=True)
class _Asked:
    """What travels with the page: the order, which images, what can be undone, and what was skipped."""

    by: By
    show: Show
    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def _carried(
    by: Annotated[By, Form()] = "margin",
    show: Annotated[Show, Form()] = "new",
    done: Carried = "",
    skipped: Carried = "",
) -> _Asked:
    return _Asked(by, show, _words(done), _words(skipped))


Asked = Annotated[_Asked, Depends(_carried)]


def router() -> APIRouter:
    """Return the routes of reviews."""
    routes = APIRouter(prefix="/console/jobs/{id}/review", include_in_schema=False)
    queues = Queues()

    @routes.get("")
    def show_next(
        request: Request,
        owned: Review,
        id: Id,
        by: Annotated[By, Query()] = "margin",
        show: Annotated[Show, Query()] = "new",
    ) -> Response:
        status = _reviewable(owned, id)
        store = owned.client.backend.store
        summary = agreement.summary(id, queues.votes(store, id))
        card = _card(owned, queues, status, _Asked(by, show))
        return page(request, "review.html", names=_labels(owned, status), summary=summary, **card)

    @routes.post("")
    def decide(
        request: Request,
        owned: Review,
        id: Id,
        asked: Asked,
        image: Annotated[str, Form(max_length=24)],
        label: Annotated[str, Form(max_length=2000)] = "",
    ) -> Response:
        """Write what the reviewer says of an image, or skip it if that is nothing; show the next."""
        status = _reviewable(owned, id)
        store, done, skipped = owned.client.backend.store, asked.done, asked.skipped
        if label.strip():
            waiting = queues.waiting(store, status, asked.by, asked.show, owned.token.reviewer)
            doubt = next((one for one in waiting.doubts if one.image == image), None)
            if doubt is None:
                raise Problem(409, "This image is no longer on the list; go on with the next.")
            verdict = verdict_of(doubt.row, label, by=owned.token.reviewer)
            done = (*done, verdicts.add(store, id, verdict).text)
        if not label.strip() or asked.show == "disputed":
            # A verdict need not settle a dispute: the next one is shown all the same.
            skipped = (*skipped, image)
        return _answer(request, owned, queues, status, _Asked(asked.by, asked.show, done, skipped))

    @routes.post("/undo")
    def undo_last(request: Request, owned: Review, id: Id, asked: Asked) -> Response:
        """Take the last verdict back, or the last skip if there was no verdict; show its image again."""
        status = _reviewable(owned, id)
        done, skipped = asked.done, asked.skipped
        if done:
            *rest, last = done
            match = _NAMED.fullmatch(last)
            if match is None:
                raise Problem(422, "This names no verdict; go on from a page of the console.")
            verdicts.withdraw(owned.client.backend.store, id, Named(match[2], match[1]), by=owned.token.reviewer)
            done, skipped = tuple(rest), tuple(one for one in skipped if one != match[1])
        else:
            skipped = skipped[:-1]
        return _answer(request, owned, queues, status, _Asked(asked.by, asked.show, done, skipped))

    return routes


def _reviewable(owned: Owned, id: str) -> Status:
    status = owned.job(id)
    lifecycle.read_classify(owned.client.backend.store, id)
    if not status.ok:
        raise JobConflict(f"The job {id} has no labels yet; come back when its first shard is done.")
    return status


def _answer(request: Request, owned: Owned, queues: Queues, status: Status, asked: _Asked) -> Response:
    """Return the next image: in its place for htmx, or as a page for a browser without scripts."""
    if "hx-request" not in request.headers:
        more = "" if asked.show == "new" else f"&show={asked.show}"
        return RedirectResponse(f"/console/jobs/{status.id}/review?by={asked.by}{more}", 303)
    return page(request, "review_card.html", **_card(owned, queues, status, asked))


def _card(owned: Owned, queues: Queues, status: Status, asked: _Asked) -> dict[str, Any]:
    waiting = queues.waiting(owned.client.backend.store, status, asked.by, asked.show, owned.token.reviewer)
    left = sorted(waiting.doubts, key=lambda one: one.image in asked.skipped)
    now, after = (left[0] if left else None), left[1:2]
    said = waiting.votes.get(now.image, {}).values() if now else ()
    return {
        "job": status,
        "by": asked.by,
        "show": asked.show,
        "doubt": now,
        "said": [one.verdict for one in sorted(said, key=lambda one: one.named)],
        "picture": _picture(owned, status.id, now),
        "coming": _picture(owned, status.id, after[0]) if after else "",
        "reviewed": waiting.reviewed,
        "waiting": len(waiting.doubts),
        "done": " ".join(asked.done[-_MOST_UNDO:]),
        "skipped": " ".join(asked.skipped[-_MOST_UNDO:]),
    }


def _picture(owned: Owned, id: str, doubt: Doubt | None) -> str:
    """Return the end of the address of an image's picture; empty for one whose manifest is gone."""
    if doubt is None:
        return ""
    try:
        manifest = read_manifest(owned.client.backend.store.get(JobKeys(id).manifest(doubt.shard)))
    except ObjectNotFound:
        return ""
    wanted = (doubt.row["key"], doubt.row["uri"])
    place = next((place for place, item in enumerate(manifest) if (item.key, item.uri) == wanted), None)
    return "" if place is None else f"pictures/{doubt.shard}/{place}"


def _labels(owned: Owned, status: Status) -> Sequence[str]:
    """Return the labels that the model knows; none if it was removed."""
    try:
        return owned.client.model(status.model).labels
    except UnknownModel:
        return ()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split()[-_MOST_UNDO:])
