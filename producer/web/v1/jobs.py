"""Jobs over HTTP: submit, list, show, wait for, steer and delete them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from contract.errors import InvalidInput, JobConflict
from contract.jobs import lifecycle
from contract.jobs.options import COMMANDS, JobOptions
from contract.jobs.sources import source_kind
from contract.jobs.specs import JOB_ID, JobId
from contract.jobs.status import Status
from contract.keys.bucket import JOBS
from contract.keys.jobs import JobKeys
from contract.records import Record
from producer.jobs import cleaning, pages
from producer.jobs.submission import new_job_id
from producer.web.access import still_valid
from producer.web.bodies import JobBody, ShareBody, options_of, values_of
from producer.web.owned import Jobs, Owned, Review
from producer.web.problems import Problem

if TYPE_CHECKING:
    from producer.web.app import Api

MOST_WAIT = 60
"""Seconds that a request may wait for the end of a job."""
_CHECK_SECONDS = 5.0
"""How often the token of a request that waits is checked again."""
_KEY_SECONDS = 5.0
"""How long a request waits for another one with the same Idempotency-Key."""
_KEY_LOOK_SECONDS = 0.25
_KEY_LOCK_SECONDS = 30.0
_WAIT = re.compile(r"(?:^|[,;\s])wait(?:\s*=\s*\"?(\d{1,6})\"?)?\s*(?=[,;]|$)", re.IGNORECASE)
REPORT_CSP = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""A page of a job shows labels and names that anybody chose: it runs nothing and reaches nothing."""

Id = Annotated[str, Path(pattern=JOB_ID, description="Id of a job.")]
Prefer = Annotated[
    str,
    Header(description="`wait=N`: wait up to N seconds, 60 at most, for the end of the job (RFC 7240); `wait`: 60."),
]


class JobPage(BaseModel):
    """A page of jobs: those that have not ended first, then the others by their ends, newest first."""

    jobs: list[Status]
    cursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class RemoveBody(Record):
    """Jobs to be deleted."""

    jobs: tuple[JobId, ...] = Field(min_length=1, max_length=1000, description="Their ids.")


class RemovedJob(BaseModel):
    """What was deleted."""

    what: str = Field(description="`removed job`, or what else it was.")
    job: str = Field(description="Its id.")
    objects: int = Field(description="Objects in the bucket.")
    bytes: int = Field(description="Bytes in them.")


def router() -> APIRouter:
    """Return the routes of jobs."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.post(
        "",
        status_code=202,
        response_model=Status,
        responses={200: {"description": "It has ended within the wait.", "model": Status}},
    )
    async def submit_job(
        request: Request,
        response: Response,
        owned: Jobs,
        body: Annotated[JobBody, Body()],
        prefer: Prefer = "",
        idempotency_key: Annotated[
            str, Header(max_length=255, description="The same request with the same key again is the same job.")
        ] = "",
    ) -> Status:
        """Submit the job of a command; answer when it is queued, or when it has ended if the request waits."""
        if idempotency_key:
            status = await _submitted_once(owned, body, idempotency_key)
        else:
            status = await anyio.to_thread.run_sync(submitted, owned, body)
        response.headers["Location"] = f"/v1/jobs/{status.id}"
        return await _waited(request, response, owned, status, prefer, pending=202)

    @routes.get("")
    def list_jobs(
        owned: Review,
        limit: Annotated[int, Query(ge=1, le=200, description="Jobs on a page, at most.")] = 50,
        cursor: Annotated[str, Query(max_length=400, description="Of the page before.")] = "",
        before: Annotated[
            str,
            Query(max_length=63, description="In place of a cursor, a job that has ended: the page begins behind it."),
        ] = "",
    ) -> JobPage:
        """List jobs a page at a time; a page may be short and still have a next one."""
        backend = owned.client.backend
        cleaning.complete_index(backend.store)
        owner = None if owned.token.sees_all else owned.token.owner
        if before and cursor:
            raise InvalidInput("A page begins behind a cursor or a job; leave one of them out.")
        place = pages.behind(backend, owned.job(before).id) if before else place_of(cursor)
        found = pages.listed(backend, limit, place, owner)
        return JobPage(jobs=found.jobs, cursor=cursor_of(found.cursor) or None)

    @routes.post("/remove")
    def remove_jobs(owned: Jobs, body: RemoveBody) -> list[RemovedJob]:
        """Delete jobs that have ended, or none of them; jobs that need each other's images go together."""
        for id in body.jobs:
            owned.job(id)
        return [RemovedJob(**asdict(one)) for one in owned.client.remove_jobs(body.jobs)]

    @routes.get("/{id}", response_model=Status)
    async def get_job(request: Request, response: Response, owned: Review, id: Id, prefer: Prefer = "") -> Status:
        """Return how far a job is, or how it has ended if the request waits."""
        status = await anyio.to_thread.run_sync(owned.job, id)
        return await _waited(request, response, owned, status, prefer, pending=200)

    @routes.patch("/{id}")
    def set_share(owned: Jobs, id: Id, body: ShareBody) -> Status:
        """Change which part of the slots a job gets from now on."""
        owned.job(id)
        return owned.client.set_share(id, priority=body.priority, weight=body.weight, max_slots=body.max_slots)

    @routes.delete("/{id}", status_code=204)
    def remove_job(owned: Jobs, id: Id) -> None:
        """Delete a job that has ended, with its inputs, rows and pages."""
        owned.job(id)
        owned.client.remove_jobs([id])

    @routes.post("/{id}/cancel")
    def cancel_job(owned: Jobs, id: Id) -> Status:
        """Stop a job, and keep what it has done."""
        owned.job(id)
        return owned.client.cancel(id)

    @routes.post("/{id}/resume")
    def resume_job(owned: Jobs, id: Id) -> Status:
        """Continue a job that was canceled, failed or got stuck."""
        owned.job(id)
        return resumed(owned, id)

    @routes.post("/{id}/retry")
    def retry_job(owned: Jobs, id: Id) -> Status:
        """Run only the failed images of a job again."""
        owned.job(id)
        return owned.client.retry(id)

    @routes.get("/{id}/history")
    def get_history(owned: Review, id: Id) -> list[dict[str, Any]]:
        """Return the figures of each epoch of a training so far."""
        owned.job(id)
        return owned.client.history(id)

    @routes.get("/{id}/report", response_class=HTMLResponse)
    def get_report(
        owned: Review,
        id: Id,
        timeout: Annotated[float, Query(ge=0, le=MOST_WAIT, description="Seconds to wait for a page to be made.")] = 30,
    ) -> HTMLResponse:
        """Return the page of a job as HTML, which is made at the first call for a classify job."""
        owned.job(id)
        page = owned.client.report(id, timeout=timeout)
        return HTMLResponse(page, headers={"Content-Security-Policy": REPORT_CSP})

    return routes


def resumed(owned: Owned, id: str) -> Status:
    """Continue a job of this owner; raises JobConflict if its images lie on another machine."""
    store = owned.client.backend.store
    spec = lifecycle.read_spec(store, id)
    if source_kind(spec.source.kind).packed_by_producer and lifecycle.read_plan(store, id) is None:
        raise JobConflict(
            f"The job {id} was interrupted while a folder was packed; resume it on the machine that has the folder."
        )
    return owned.client.resume(id)


def submitted(owned: Owned, body: JobOptions) -> Status:
    """Submit the job of a body, under its name if it has one."""
    given, command = getattr(body, "job", None), body.command
    id = given or new_job_id(command)
    if given and not owned.free(given):
        raise JobConflict(f"The job {given!r} cannot be named so; choose another name, or leave it out.")
    return owned.client.submit(options_of(COMMANDS[command], body, owned), job=id)


async def _submitted_once(owned: Owned, body: JobOptions, key: str) -> Status:
    """Submit the job of a key, or return it if it is there; wait while another request submits it."""
    if getattr(body, "job", None):
        raise InvalidInput("A job has a name or an Idempotency-Key; leave one of them out.")
    if not re.fullmatch(r"[ -~]{1,255}", key):
        raise InvalidInput("An Idempotency-Key is 1 to 255 printable ASCII characters.")
    ends = time.monotonic() + _KEY_SECONDS
    # No thread is held between two looks: a few clients that repeat themselves would take all of them.
    while (status := await anyio.to_thread.run_sync(_submit_once, owned, body, key)) is None:
        if time.monotonic() > ends:
            said = "Another request with this Idempotency-Key is under way; try again."
            raise Problem(409, said, code="key_in_use", headers={"Retry-After": "1"})
        await anyio.sleep(_KEY_LOOK_SECONDS)
    return status


def _submit_once(owned: Owned, body: JobOptions, key: str) -> Status | None:
    """Submit the job of a key, or return it if it is there; return None if another request is about to submit it."""
    text = json.dumps([body.command, values_of(body)], sort_keys=True, default=str)
    # The id names the owner's key, and what was asked for.
    stem = "key-" + _digest("\n".join((owned.token.owner, key)), 20)
    id = f"{stem}-{_digest(text, 12)}"
    if found := _of_key(owned, stem, id):
        return found
    # Two requests may use the same key with different bodies at the same time; only one of them may submit.
    with owned.client.backend.ledger.lock("key", stem, _KEY_LOCK_SECONDS) as lock:
        if lock is None:
            return None
        return _of_key(owned, stem, id) or owned.client.submit(options_of(COMMANDS[body.command], body, owned), job=id)


def _of_key(owned: Owned, stem: str, id: str) -> Status | None:
    """Return the job of a key, None if there is none; raises Problem if the key was used for another request."""
    store = owned.client.backend.store
    there = [entry.key for entry in store.list(f"{JOBS}{stem}-", folders=True)]
    if [key for key in there if key != JobKeys(id).root]:
        raise Problem(422, "This Idempotency-Key was used for another request; choose a new one.", code="key_reused")
    if not there or not store.exists(JobKeys(id).spec):
        return None
    status = owned.job(id)
    if status.state == "queued":
        # Whoever wrote the spec may have got no further. As it was pinned: an alias may stand for another version now.
        lifecycle.submit(owned.client.backend, lifecycle.read_spec(store, id), status.owner)
    return status


async def _waited(
    request: Request, response: Response, owned: Owned, status: Status, prefer: str, *, pending: int
) -> Status:
    """Return the status as late as the request prefers, and set the status code: 200 for a job that has ended.

    Raises Problem 401 once the token is no longer valid.
    """
    match = _WAIT.search(prefer)
    if match:
        api: Api = request.app
        seconds = min(int(match[1] or MOST_WAIT), MOST_WAIT)
        ends = time.monotonic() + seconds
        while not status.ended and (left := ends - time.monotonic()) > 0:
            status = await api.follower.end(status, min(left, _CHECK_SECONDS))
            await still_valid(api.access, owned.token)
        response.headers["Preference-Applied"] = f"wait={seconds}"
    response.status_code = 200 if match and status.ended else pending
    return status


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def cursor_of(place: str) -> str:
    """Return a place in the list of jobs as a client carries it."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_of(cursor: str) -> str:
    """Return the place that a cursor stands for; raises InvalidInput."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidInput("This cursor is none that a page gave; leave it out for the first page.") from None
