"""The list of jobs, live, and what a person may do with one: cancel, resume, retry, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from contract.jobs.kinds import makes_labels
from contract.jobs.status import Status
from contract.records import Priority
from producer.jobs import cleaning, pages
from producer.web.console.rendering import page
from producer.web.owned import Jobs, Owned, Review
from producer.web.problems import Problem
from producer.web.v1.jobs import Id, cursor_of, place_of, resumed

_ON_A_PAGE = 50
_MOST_OPEN = 200
"""Jobs that have not ended, of which a page shows all but the oldest beyond these."""
ENDS = pages.RecentEnds()
"""What the pages of this process share."""

_ACTIONS: dict[str, Callable[[Owned, str], object]] = {
    "cancel": lambda owned, job: owned.client.cancel(job),
    "resume": resumed,
    "retry": lambda owned, job: owned.client.retry(job),
}


def router() -> APIRouter:
    """Return the routes of jobs."""
    routes = APIRouter(prefix="/console", include_in_schema=False)

    @routes.get("/jobs")
    def list_jobs(request: Request, owned: Review, cursor: Annotated[str, Query(max_length=400)] = "") -> Response:
        """Show the jobs that have not ended, which follow live, and a page of those that have."""
        cleaning.complete_index(owned.client.backend.store)
        ended, after = _ended(owned, cursor)
        running = [] if cursor else opened(owned)
        return page(request, "jobs/jobs.html", running=running, ended=ended, after=after, first=not cursor)

    @routes.get("/parts/running")
    def list_running(
        request: Request, owned: Review, shown: Annotated[str, Query(max_length=100_000)] = ""
    ) -> Response:
        """Return the rows of jobs that have not ended; if one of those shown has, the list of ended ones asks too."""
        running = opened(owned)
        answer = page(request, "jobs/jobs_running.html", running=running)
        if set(filter(None, shown.split(","))) - {one.id for one in running}:
            answer.headers["HX-Trigger"] = "ended"
        return answer

    @routes.get("/parts/ended")
    def list_ended(request: Request, owned: Review) -> Response:
        ended, after = _ended(owned, "")
        return page(request, "jobs/jobs_ended.html", ended=ended, after=after)

    @routes.post("/jobs/{id}/delete")
    def delete_job(owned: Jobs, id: Id) -> Response:
        owned.job(id)
        owned.client.remove_jobs([id])
        return RedirectResponse("/console/jobs", 303)

    @routes.post("/jobs/{id}/share")
    def set_share(
        owned: Jobs,
        id: Id,
        priority: Annotated[Priority, Form()],
        weight: Annotated[float, Form(ge=0.01, le=100)],
        max_slots: Annotated[int, Form(ge=0, le=2**31)],
    ) -> Response:
        """Change which part of the slots a job gets from now on, and show the job."""
        owned.job(id)
        owned.client.set_share(id, priority=priority, weight=weight, max_slots=max_slots)
        return RedirectResponse(f"/console/jobs/{id}", 303)

    @routes.post("/jobs/{id}/{action}")
    def act(owned: Jobs, id: Id, action: str) -> Response:
        """Do what a button says, and show the job."""
        if action not in _ACTIONS:
            raise Problem(404, "A job can be canceled, resumed, retried and deleted.")
        owned.job(id)
        _ACTIONS[action](owned, id)
        return RedirectResponse(f"/console/jobs/{id}", 303)

    return routes


def actions_of(status: Status, owned: Owned) -> list[str]:
    """Return the buttons that a job has for the holder of a token."""
    if not owned.token.allows("jobs"):
        return []
    if not status.ended:
        return ["cancel"]
    failed = status.errors and status.state in ("succeeded", "failed") and makes_labels(status.kind)
    return [*(["retry"] if failed else []), *(["resume"] if status.state != "succeeded" else [])]


def owner_of(owned: Owned) -> str | None:
    """Return whose jobs the holder of a token sees; None: everybody's."""
    return None if owned.token.sees_all else owned.token.owner


def opened(owned: Owned) -> list[Status]:
    """Return the newest jobs that have not ended."""
    return pages.unended(owned.client.backend, owner_of(owned))[:_MOST_OPEN]


def _ended(owned: Owned, cursor: str) -> tuple[list[Status], str]:
    place = place_of(cursor) if cursor else pages.FIRST_ENDED
    found = pages.listed(owned.client.backend, _ON_A_PAGE, place, owner_of(owned), ENDS)
    return found.jobs, cursor_of(found.cursor)
