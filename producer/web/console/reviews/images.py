"""Reviewing a job's labels: the image of which the model was least sure, large, and a key for each answer.

The server remembers nothing of a reviewer: what was skipped, and what can be undone, travels with the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import Response

from contract.data.items import read_manifest
from contract.errors import JobConflict, ObjectNotFound, UnknownModel
from contract.jobs import lifecycle
from contract.jobs.reviews import agreement, neighbours, verdicts
from contract.jobs.reviews.records import Named, verdict_of
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from producer.jobs.doubts import Doubt
from producer.web.console.rendering import page
from producer.web.console.reviews.queues import Order, Queues, Shared, Show
from producer.web.owned import Owned, Review
from producer.web.problems import Problem
from producer.web.v1.jobs import Id

_MOST_UNDO = 50
_MOST_SKIPPED = 500
"""As many as a list has: one that is forgotten comes first again, and nobody would come past these."""
_NAMED = re.compile(r"([0-9a-f]{24}|many)/(\d{13}-[0-9a-f]{8})")

Carried = Annotated[str, Form(max_length=16_000)]


@dataclass(frozen=True)
class _Asked:
    """What travels with the page: the order, which images, what can be undone, and what was skipped."""

    by: Order
    show: Show
    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def _carried(
    by: Annotated[Order, Form()] = "margin",
    show: Annotated[Show, Form()] = "new",
    done: Carried = "",
    skipped: Carried = "",
) -> _Asked:
    return _Asked(by, show, tuple(done.split()[-_MOST_UNDO:]), tuple(skipped.split()[-_MOST_SKIPPED:]))


Asked = Annotated[_Asked, Depends(_carried)]


def add_routes(routes: APIRouter) -> None:
    """Add the routes of reviews image by image."""

    @routes.get("")
    def show_next(
        request: Request,
        owned: Review,
        queues: Shared,
        id: Id,
        by: Annotated[Order, Query()] = "margin",
        show: Annotated[Show, Query()] = "new",
    ) -> Response:
        return _page(request, owned, queues, reviewable(owned, id), _Asked(by, show))

    @routes.post("")
    def decide(
        request: Request,
        owned: Review,
        queues: Shared,
        id: Id,
        asked: Asked,
        image: Annotated[str, Form(max_length=24)] = "",
        label: Annotated[str, Form(max_length=2000)] = "",
        undo: Annotated[bool, Form()] = False,
    ) -> Response:
        """Write what the reviewer says of an image, skip it if that is nothing, or undo the last; show the next.

        Everything is one address, so that the page is the same for a browser without scripts.
        """
        status = reviewable(owned, id)
        if undo:
            asked, image = _undone(owned, queues, id, asked)
        else:
            asked, image = _decided(owned, queues, status, asked, image, label), ""
        if "hx-request" not in request.headers:
            return _page(request, owned, queues, status, asked, image)
        return page(request, "reviews/review_card.html", **_card(owned, queues, status, asked, image))


def _decided(owned: Owned, queues: Queues, status: Status, asked: _Asked, image: str, label: str) -> _Asked:
    """Write a verdict, or skip the image without one; return what travels on."""
    done, skipped = asked.done, asked.skipped
    if label.strip():
        doubt = queues.shown(owned.client.backend.store, status, asked.by, asked.show, owned.token.reviewer, image)
        if doubt is None:
            raise Problem(409, "This image is no longer on the list; go on with the next.")
        verdict = verdict_of(doubt.row, label, by=owned.token.reviewer)
        named = verdicts.add(owned.client.backend.store, status.id, verdict)
        queues.gave(status.id, named)
        done = (*done, named.text)
    if not label.strip() or asked.show == "disputed":
        # A verdict need not settle a dispute: the next one is shown all the same.
        skipped = (*skipped, image)
    return replace(asked, done=done, skipped=skipped)


def _undone(owned: Owned, queues: Queues, id: str, asked: _Asked) -> tuple[_Asked, str]:
    """Take the last verdict back, or the last skip if there was none; return what travels on, and its image."""
    if not asked.done:
        image = asked.skipped[-1] if asked.skipped else ""
        return replace(asked, skipped=asked.skipped[:-1]), image
    *rest, last = asked.done
    match = _NAMED.fullmatch(last)
    if match is None:
        raise Problem(422, "This names no verdict; go on from a page of the console.")
    image, named = match[1], Named(match[2], match[1])
    verdicts.withdraw(owned.client.backend.store, id, named, by=owned.token.reviewer)
    queues.withdrew(id, named)
    return replace(asked, done=tuple(rest), skipped=tuple(one for one in asked.skipped if one != image)), image


def reviewable(owned: Owned, id: str) -> Status:
    """Return the status of a job whose labels may be reviewed; raises UnknownJob and JobConflict."""
    status = owned.job(id)
    lifecycle.read_classify(owned.client.backend.store, id)
    if not status.ok:
        raise JobConflict(f"The job {id} has no labels yet; come back when its first shard is done.")
    return status


def compared(owned: Owned, queues: Queues, status: Status) -> tuple[str, bool]:
    """Return what is to be known of images that are compared with each other, and whether to look again in a moment.

    Has a worker compare the images of a job that has ended, if none has.
    """
    backend = owned.client.backend
    if not lifecycle.read_classify(backend.store, status.id).embed:
        return "This job kept no embeddings; label the source again with `--embed` to compare images.", False
    if status.finished_at is None:
        return "Images are compared with each other once the job has ended.", False
    table = neighbours.read(backend.store, status.id, end=status.finished_at)
    if table is None:
        if not queues.asked_lately(status.id):
            backend.queues.finish(status.id)
        return "A worker compares the images now, which takes seconds to a minute.", True
    if (total := neighbours.images(table)) > table.num_rows:
        return f"The first {table.num_rows:,} of {total:,} images were compared.", False
    return "", False


def _page(request: Request, owned: Owned, queues: Queues, status: Status, asked: _Asked, first: str = "") -> Response:
    note, again = compared(owned, queues, status) if asked.by == "neighbours" else ("", False)
    with queues.tally(owned.client.backend.store, status.id) as tally:
        summary = agreement.summary(status.id, tally)
    card = _card(owned, queues, status, asked, first)
    names = _labels(owned, status)
    return page(request, "reviews/review.html", names=names, summary=summary, note=note, again=again, **card)


def _card(owned: Owned, queues: Queues, status: Status, asked: _Asked, first: str = "") -> dict[str, Any]:
    """Return what the card shows: the image `first` if that waits, else the least certain that nobody else looks at."""
    reviewer = owned.token.reviewer
    waiting = queues.waiting(owned.client.backend.store, status, asked.by, asked.show, reviewer)
    turns = {image: turn for turn, image in enumerate(asked.skipped, 2)}  # of the skipped ones the earliest first
    turns |= {image: 1 for image in queues.shown_to_others(status.id, reviewer) if image not in turns}
    left = sorted(waiting.doubts, key=lambda one: -1 if one.image == first else turns.get(one.image, 0))
    queues.show(status.id, reviewer, [one.image for one in left[:2]])
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
        "skipped": " ".join(asked.skipped[-_MOST_SKIPPED:]),
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
