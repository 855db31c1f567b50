"""The page of one job: how far it is, live; its labels, failures and pictures; and its report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header, Path, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, ServiceUnavailable
from contract.jobs import lifecycle
from contract.jobs.kinds import kind_of, makes_labels
from contract.jobs.status import Status
from producer.jobs.failures import failures
from producer.jobs.tallies import Tallies, Tally
from producer.web.access import still_valid
from producer.web.console import pictures
from producer.web.console.jobs import samples
from producer.web.console.jobs.errors import pictured, ranked
from producer.web.console.jobs.listing import actions_of
from producer.web.console.rendering import page, render
from producer.web.owned import Owned, Review
from producer.web.problems import Problem, of_error
from producer.web.v1.events import event_id, updates
from producer.web.v1.jobs import REPORT_CSP, Id

if TYPE_CHECKING:
    from producer.web.app import Api

_MOST_BARS = 12
_FAILURES = 12
_FEW_SHARDS = 16


def router() -> APIRouter:
    """Return the routes of one job."""
    routes = APIRouter(prefix="/console/jobs/{id}", include_in_schema=False)
    tallies = Tallies()

    @routes.get("")
    def show_job(request: Request, owned: Review, id: Id) -> Response:
        return page(request, "jobs/job.html", **_facts(owned.job(id), owned))

    @routes.get("/events")
    async def follow_job(
        request: Request,
        owned: Review,
        id: Id,
        last_event_id: Annotated[str, Header(max_length=64)] = "",
    ) -> Response:
        """Send the live part of the page whenever the job has changed, until it has ended."""
        now = await anyio.to_thread.run_sync(owned.job, id)
        if now.ended and last_event_id == event_id(now):
            return Response(status_code=204)
        events = _events(request.app, now, owned)
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @routes.get("/samples")
    def show_samples(request: Request, owned: Review, id: Id) -> Response:
        """Return pictures of the job with what it says of them, as far as it is, and its first failures."""
        status = owned.job(id)
        store, labels = owned.client.backend.store, makes_labels(status.kind)
        tally = Tally() if status.ended else tallies.of(store, id)
        # A part that asks every few seconds looks no further than it must.
        few: dict[str, Any] = {} if status.ended else {"after": f"{tally.failing or 0}.0", "shards": _FEW_SHARDS}
        failed = failures(store, id, _FAILURES, **few).failures if labels and status.errors else []
        return page(
            request,
            "jobs/job_samples.html",
            job=status,
            rows=_samples(store, status),
            failures=pictured(store, id, failed),
            labels=ranked(tally.labels, _MOST_BARS),
            codes=ranked(tally.codes),
            whole=tally.complete,
        )

    @routes.get("/pictures/{shard}/{place}")
    def get_picture(
        request: Request,
        owned: Review,
        id: Id,
        shard: Annotated[int, Path(ge=0, le=10**9)],
        place: Annotated[int, Path(ge=0, le=10**7)],
    ) -> Response:
        """Return the image at a place in a shard's manifest, if a browser can show it."""
        owned.job(id)
        api: Api = request.app
        return pictures.response(request, pictures.read(owned, api.web, id, shard, place))

    @routes.get("/made/{shard}/{offset}/{size}")
    def get_made(
        request: Request,
        owned: Review,
        id: Id,
        shard: Annotated[int, Path(ge=0, le=10**9)],
        offset: Annotated[int, Path(ge=0, le=2**40)],
        size: Annotated[int, Path(ge=1, le=2**40)],
    ) -> Response:
        """Return a generated image from the tar of its shard."""
        owned.job(id)
        return pictures.response(request, pictures.read_made(owned, id, shard, offset, size))

    @routes.get("/report")
    def show_report(request: Request, owned: Review, id: Id) -> Response:
        """Return the page that the job wrote, which may run and load nothing; ask for it anew while it is made."""
        status = owned.job(id)
        try:
            made = owned.client.report(id, timeout=0.5)
        except ServiceUnavailable as error:
            return page(request, "jobs/report_wait.html", 202, job=status, why=str(error))
        return HTMLResponse(made, headers={"Content-Security-Policy": REPORT_CSP})

    return routes


def _samples(store: ObjectStore, status: Status) -> list[samples.Sample]:
    """Return the first images of a job that has ended, and the newest of one that runs."""
    makes = kind_of(status.kind).makes
    if makes == "labels":
        return samples.first_rows(store, status.id) if status.ended else samples.newest_rows(store, status.id)
    if makes != "images":
        return []
    spec = lifecycle.read_images(store, status.id)
    found = samples.first_made(store, spec)
    return found or ([] if status.ended else samples.first_candidates(store, spec))


def _facts(status: Status, owned: Owned) -> dict[str, Any]:
    kind = kind_of(status.kind)
    return {
        "job": status,
        "kind": kind,
        "has_page": kind.page is not None and status.ended and status.done > 0,
        "actions": actions_of(status, owned),
        "deletable": status.ended and owned.token.allows("jobs"),
        "shares": not status.ended and owned.token.allows("jobs"),
        "labels": ranked(status.labels or {}, _MOST_BARS),
        "codes": ranked(status.error_codes or {}),
    }


async def _events(api: Api, now: Status, owned: Owned) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    async with aclosing(updates(api.follower, now, partial(still_valid, api.access, owned.token))) as statuses:
        try:
            async for status in statuses:
                if status is None:
                    yield ":\n\n"
                    continue
                live = render("jobs/job_live.html", **_facts(status, owned))
                yield _event("end" if status.ended else "status", live, event_id(status))
        except ImagemillError as error:
            yield _event("failed", str(of_error(error).detail))
        except Problem:
            return  # its token was revoked: the browser comes back and is told so


def _event(kind: str, text: str, id: str = "") -> str:
    data = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"{f'id: {id}' + chr(10) if id else ''}event: {kind}\n{data}\n"
