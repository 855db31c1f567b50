"""The pages of what makes jobs by itself: watches with their lag, schedules with their ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from contract.errors import UnknownJob
from producer.web.console.pages import page
from producer.web.owned import Jobs, Owned, Review
from producer.web.problems import Problem
from producer.web.v1.schedules import Name

_TICKS = 50
_SEGMENTS = 20


def router() -> APIRouter:
    """Return the routes of watches and schedules."""
    routes = APIRouter(prefix="/console", include_in_schema=False)

    @routes.get("/watches")
    def list_watches(request: Request, owned: Review) -> Response:
        found = [one for one in owned.client.watches() if owned.sees(one.owner)]
        return page(request, "watches.html", watches=found)

    @routes.get("/parts/watches")
    def list_watches_again(request: Request, owned: Review) -> Response:
        found = [one for one in owned.client.watches() if owned.sees(one.owner)]
        return page(request, "watches_part.html", watches=found)

    @routes.get("/watches/{name}")
    def show_watch(request: Request, owned: Review, name: Name) -> Response:
        return page(request, "watch.html", **_watch(owned, name), steers=owned.token.allows("jobs"))

    @routes.get("/watches/{name}/part")
    def show_watch_again(request: Request, owned: Review, name: Name) -> Response:
        return page(request, "watch_live.html", **_watch(owned, name))

    @routes.post("/watches/{name}/{action}")
    def steer_watch(owned: Jobs, name: Name, action: str) -> Response:
        client = owned.watch(name)
        _do({"pause": client.pause_watch, "unpause": client.unpause_watch}, action, name)
        return RedirectResponse(f"/console/watches/{name}", 303)

    @routes.get("/schedules")
    def list_schedules(request: Request, owned: Review) -> Response:
        found = [one for one in owned.client.schedules() if owned.sees(one.owner)]
        return page(request, "schedules.html", schedules=found)

    @routes.get("/schedules/{name}")
    def show_schedule(request: Request, owned: Review, name: Name) -> Response:
        client = owned.schedule(name)
        found, ticks = client.schedules(name)[0], client.schedule_history(name, _TICKS)
        counts = Counter(tick.state for tick in ticks)
        return page(
            request, "schedule.html", schedule=found, ticks=ticks, counts=counts, steers=owned.token.allows("jobs")
        )

    @routes.post("/schedules/{name}/{action}")
    def steer_schedule(owned: Jobs, name: Name, action: str) -> Response:
        client = owned.schedule(name)
        does = {"pause": client.pause_schedule, "unpause": client.unpause_schedule, "run": client.run_schedule}
        _do(does, action, name)
        return RedirectResponse(f"/console/schedules/{name}", 303)

    return routes


def _watch(owned: Owned, name: str) -> dict[str, Any]:
    """Return a watch, and its segments that have not ended as jobs, the newest first."""
    found = owned.watch(name).watch(name)
    segments = []
    for job in sorted(found.jobs, reverse=True)[:_SEGMENTS]:
        with suppress(UnknownJob):
            segments.append(owned.job(job))
    return {"watch": found, "segments": segments}


def _do(does: Mapping[str, Callable[[str], object]], action: str, name: str) -> None:
    if action not in does:
        raise Problem(404, f"There is no such button; there are {', '.join(does)}.")
    does[action](name)
