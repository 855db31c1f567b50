"""The pages of watches: how far each is behind, and its newest segments."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from contract.errors import UnknownJob
from producer.web.console.rendering import page
from producer.web.owned import Jobs, Owned, Review
from producer.web.v1.watches import Name

_SEGMENTS = 20


def router() -> APIRouter:
    """Return the routes of watches."""
    routes = APIRouter(prefix="/console", include_in_schema=False)

    @routes.get("/watches")
    def list_watches(request: Request, owned: Review) -> Response:
        found = [one for one in owned.client.watches() if owned.sees(one.owner)]
        return page(request, "watches/watches.html", watches=found)

    @routes.get("/parts/watches")
    def list_watches_again(request: Request, owned: Review) -> Response:
        found = [one for one in owned.client.watches() if owned.sees(one.owner)]
        return page(request, "watches/watches_part.html", watches=found)

    @routes.get("/watches/{name}")
    def show_watch(request: Request, owned: Review, name: Name) -> Response:
        return page(request, "watches/watch.html", **_watch(owned, name), steers=owned.token.allows("jobs"))

    @routes.get("/watches/{name}/part")
    def show_watch_again(request: Request, owned: Review, name: Name) -> Response:
        return page(request, "watches/watch_live.html", **_watch(owned, name))

    @routes.post("/watches/{name}/{action}")
    def steer_watch(owned: Jobs, name: Name, action: Literal["pause", "unpause"]) -> Response:
        client = owned.watch(name)
        does = {"pause": client.pause_watch, "unpause": client.unpause_watch}
        does[action](name)
        return RedirectResponse(f"/console/watches/{name}", 303)

    return routes


def _watch(owned: Owned, name: str) -> dict[str, Any]:
    """Return a watch, and its segments that have not ended as jobs, the newest first."""
    found = owned.watch(name).watch(name)
    segments = []
    for job in sorted(found.jobs, reverse=True)[:_SEGMENTS]:
        with suppress(UnknownJob):
            segments.append(owned.job(job))
    return {"watch": found, "segments": segments}
