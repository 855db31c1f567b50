"""Signing in and out of the console, its static files, and the way to its first page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from producer.web.access import token_of
from producer.web.console import door
from producer.web.console.rendering import first_of, page, static
from producer.web.problems import Problem

if TYPE_CHECKING:
    from producer.web.app import Api


def router() -> APIRouter:
    """Return the routes of whoever is not signed in yet."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def begin() -> Response:
        return RedirectResponse(door.ROOT, 303)

    @routes.get("/console")
    @routes.get("/console/")
    async def begin_where_allowed(request: Request) -> Response:
        return RedirectResponse(first_of(token_of(request)), 303)

    @routes.get("/console/static/{name}")
    async def get_static(name: str) -> Response:
        return static(name)

    @routes.get("/console/sign-in")
    async def show_sign_in(request: Request, next: Annotated[str, Query(max_length=2000)] = "") -> Response:
        return page(request, "sign_in.html", next=door.page_after(next), why="")

    @routes.post("/console/sign-in")
    async def sign_in(
        request: Request,
        token: Annotated[str, Form(max_length=500)] = "",
        next: Annotated[str, Form(max_length=2000)] = "",
    ) -> Response:
        """Keep a token that is known, and go on; say what is wrong with any other."""
        api: Api = request.app
        place = door.page_after(next)
        try:
            await anyio.to_thread.run_sync(api.access.check, [f"Bearer {token.strip()}"])
        except Problem as problem:
            known = {401: "This token is unknown, revoked or expired."}
            why = known.get(problem.status_code, str(problem.detail))
            return page(request, "sign_in.html", problem.status_code, next=place, why=why)
        answer = RedirectResponse(place, 303)
        host, origin, site = (request.headers.get(name, "") for name in ("host", "origin", "sec-fetch-site"))
        secure = door.over_tls(request.url.scheme, host=host, origin=origin, site=site)
        door.keep(answer, token.strip(), secure=secure)
        return answer

    @routes.post("/console/sign-out")
    async def sign_out() -> Response:
        answer = RedirectResponse(door.SIGN_IN, 303)
        door.forget(answer)
        return answer

    return routes
