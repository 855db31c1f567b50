"""Reviewing a job's labels: the image of which the model was least sure, large, and a key for each answer.

The server remembers nothing of a reviewer: what was skipped, and what can be undone, travels with the page.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Container, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from contract.data.items import read_manifest
from contract.errors import JobConflict, ObjectNotFound, UnknownModel
from contract.jobs import lifecycle, reviews
from contract.jobs.reviews import Named
from contract.jobs.status import Status
from contract.keys import JobKeys
from producer.jobs.doubts import By, Doubt, least_certain
from producer.web.console.pages import page
from producer.web.jobs import Id
from producer.web.owned import Owned, Review
from producer.web.problems import Problem

_MOST = 500
"""Images that are found at a time; then the rows are looked through again."""
_MOST_QUEUES = 16
_FRESH_SECONDS = 30.0
"""For how long the order of a job that runs is good enough; that of one that has ended does not change."""
_MOST_UNDO = 50
_NAMED = re.compile(r"([0-9a-f]{24})/(\d{13}-[0-9a-f]{8})")

Carried = Annotated[str, Form(max_length=4000)]


def router() -> APIRouter:
    """Return the routes of reviews."""
    routes = APIRouter(prefix="/console/jobs/{id}/review", include_in_schema=False)
    queues = _Queues()

    @routes.get("")
    def show_next(request: Request, owned: Review, id: Id, by: Annotated[By, Query()] = "margin") -> Response:
        status = _reviewable(owned, id)
        names = _labels(owned, status)
        return page(request, "review.html", names=names, **_card(owned, queues, status, by))

    @routes.post("")
    def decide(
        request: Request,
        owned: Review,
        id: Id,
        image: Annotated[str, Form(max_length=24)],
        label: Annotated[str, Form(max_length=2000)] = "",
        by: Annotated[By, Form()] = "margin",
        done: Carried = "",
        skipped: Carried = "",
    ) -> Response:
        """Write what the reviewer says of an image, or skip it if that is nothing; show the next."""
        status = _reviewable(owned, id)
        undo, aside = _words(done), _words(skipped)
        if label.strip():
            said = reviews.standing(owned.client.backend.store, id)
            doubt = next((one for one in queues.of(owned, status, by, said) if one.image == image), None)
            if doubt is None:
                raise Problem(409, "This image is no longer on the list; go on with the next.")
            verdict = reviews.verdict_of(doubt.row, label, by=owned.token.owner)
            undo = [*undo, reviews.add(owned.client.backend.store, id, verdict).text]
        else:
            aside = [*aside, image]
        return _answer(request, owned, queues, status, by, undo, aside)

    @routes.post("/undo")
    def undo_last(
        request: Request,
        owned: Review,
        id: Id,
        by: Annotated[By, Form()] = "margin",
        done: Carried = "",
        skipped: Carried = "",
    ) -> Response:
        """Take the last verdict back, or the last skip if there was no verdict; show its image again."""
        status = _reviewable(owned, id)
        undo, aside = _words(done), _words(skipped)
        if undo:
            match = _NAMED.fullmatch(undo.pop())
            if match is None:
                raise Problem(422, "This names no verdict; go on from a page of the console.")
            reviews.withdraw(owned.client.backend.store, id, Named(match[2], match[1]), by=owned.token.owner)
            aside = [one for one in aside if one != match[1]]
        elif aside:
            aside.pop()
        return _answer(request, owned, queues, status, by, undo, aside)

    return routes


class _Queues:
    """The least certain images of a few jobs, kept in memory since finding them reads all rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, By], tuple[float, str | None, list[Doubt]]] = OrderedDict()

    def of(self, owned: Owned, status: Status, by: By, said: Container[str]) -> list[Doubt]:
        """Return the least certain images of a job, looked for anew once all of them are among those `said`."""
        with self._lock:
            since, finished, found = self._held.get((status.id, by), (0.0, None, []))
        fresh = status.ended or time.monotonic() - since < _FRESH_SECONDS
        spent = len(found) == _MOST and all(one.image in said for one in found)
        if not since or finished != status.finished_at or not fresh or spent:
            found = least_certain(owned.client.backend.store, status.id, _MOST, by=by, without=said)
            with self._lock:
                self._held[status.id, by] = (time.monotonic(), status.finished_at, found)
                self._held.move_to_end((status.id, by))
                while len(self._held) > _MOST_QUEUES:
                    self._held.popitem(last=False)
        return found


def _reviewable(owned: Owned, id: str) -> Status:
    status = owned.job(id)
    lifecycle.read_classify(owned.client.backend.store, id)
    if not status.ok:
        raise JobConflict(f"The job {id} has no labels yet; come back when its first shard is done.")
    return status


def _answer(
    request: Request, owned: Owned, queues: _Queues, status: Status, by: By, undo: list[str], aside: list[str]
) -> Response:
    """Return the next image: in its place for htmx, or as a page for a browser without scripts."""
    if "hx-request" not in request.headers:
        return RedirectResponse(f"/console/jobs/{status.id}/review?by={by}", 303)
    return page(request, "review_card.html", **_card(owned, queues, status, by, undo, aside))


def _card(
    owned: Owned, queues: _Queues, status: Status, by: By, undo: Sequence[str] = (), aside: Sequence[str] = ()
) -> dict[str, Any]:
    store = owned.client.backend.store
    said = reviews.standing(store, status.id)
    left = [one for one in queues.of(owned, status, by, said) if one.image not in said]
    left.sort(key=lambda one: one.image in aside)
    now, after = (left[0] if left else None), left[1:2]
    return {
        "job": status,
        "by": by,
        "doubt": now,
        "picture": _picture(owned, status.id, now),
        "coming": _picture(owned, status.id, after[0]) if after else "",
        "reviewed": len(said),
        "done": " ".join(undo[-_MOST_UNDO:]),
        "skipped": " ".join(aside[-_MOST_UNDO:]),
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


def _words(text: str) -> list[str]:
    return text.split()[-_MOST_UNDO:]
