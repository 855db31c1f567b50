"""The pages of schedules: when each is due, and the jobs of its ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from producer.web.console.rendering import page
from producer.web.owned import Jobs, Review
from producer.web.v1.schedules import Name

_TICKS = 50


def router() -> APIRouter:
    """Return the routes of schedules."""
    routes = APIRouter(prefix="/console", include_in_schema=False)

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
    def steer_schedule(owned: Jobs, name: Name, action: Literal["pause", "unpause", "run"]) -> Response:
        client = owned.schedule(name)
        does: dict[str, Callable[[str], object]] = {
            "pause": client.pause_schedule,
            "unpause": client.unpause_schedule,
            "run": client.run_schedule,
        }
        does[action](name)
        return RedirectResponse(f"/console/schedules/{name}", 303)

    return routes
