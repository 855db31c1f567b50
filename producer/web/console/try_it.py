"""Trying a served model: an image dropped on a page, and the answer with its latency."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.responses import Response

from contract.errors import InvalidSettings, ServiceUnavailable
from contract.online.state import ServedState
from producer.web.console.pages import page
from producer.web.owned import Infer, Owned
from producer.web.problems import Problem, of_error

if TYPE_CHECKING:
    from producer.web.app import Api

_TASKS = ("classify", "classify-sequence")


def router() -> APIRouter:
    """Return the routes of single requests."""
    routes = APIRouter(prefix="/console/try-it", include_in_schema=False)

    @routes.get("")
    def show_form(request: Request, owned: Infer, model: Annotated[str, Query(max_length=200)] = "") -> Response:
        served, why = _served(owned)
        return page(request, "try_it.html", served=served, why=why, chosen=model)

    @routes.post("")
    async def ask(
        request: Request,
        owned: Infer,
        model: Annotated[str, Form(max_length=200)],
        image: Annotated[UploadFile, File()],
    ) -> Response:
        """Label an image now; return the answer as a part of the page, or as a page for a browser without scripts."""
        api: Api = request.app
        data = await image.read()
        if not data:
            raise Problem(422, "The file has no bytes; choose an image.")
        begun = time.perf_counter()
        (row,) = await api.online().classify(model, [data], keys=[(image.filename or "image")[:1024]])
        took = (time.perf_counter() - begun) * 1000
        said: dict[str, Any] = {"row": row, "milliseconds": took, "bytes": len(data), "model": model}
        if "hx-request" in request.headers:
            return page(request, "try_it_answer.html", **said)
        served, why = await anyio.to_thread.run_sync(_served, owned)
        return page(request, "try_it.html", served=served, why=why, chosen=model, **said)

    return routes


def _served(owned: Owned) -> tuple[list[ServedState], str]:
    """Return the served models that label images, and why they are not known if they are not."""
    try:
        return [one for one in owned.client.served() if one.task in _TASKS], ""
    except (InvalidSettings, ServiceUnavailable) as error:
        return [], str(of_error(error).detail)
