"""Trying a served model: an image dropped on a page, or images asked for, and the answer with its latency."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.responses import Response

from contract.errors import InvalidSettings, ServiceUnavailable
from contract.online.messages import MOST_SEED
from producer.web.console.rendering import page
from producer.web.online.generating import GenerateBody, as_text, generated
from producer.web.owned import Infer, Owned
from producer.web.problems import Problem, of_error

if TYPE_CHECKING:
    from producer.web.app import Api

_MOST_SHOWN = 24
"""Images that are made for one page, at most."""
_EMPTY: dict[str, Any] = {"part": "", "label": "", "seed": 0, "count": 8}
"""What the form for images shows first."""


def router() -> APIRouter:
    """Return the routes of single requests."""
    routes = APIRouter(prefix="/console/try-it", include_in_schema=False)

    @routes.get("")
    def show_form(request: Request, owned: Infer, model: Annotated[str, Query(max_length=200)] = "") -> Response:
        return page(request, "try_it/try_it.html", **(_EMPTY | _served(owned)), chosen=model)

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
        said: dict[str, Any] = {"row": row, "milliseconds": _ms(begun), "bytes": len(data), "model": model}
        return await _answer(request, owned, "try_it/try_it_answer.html", said)

    @routes.post("/images")
    async def generate(
        request: Request,
        owned: Infer,
        model: Annotated[str, Form(max_length=200)],
        label: Annotated[str, Form(max_length=1024)] = "",
        seed: Annotated[int, Form(ge=0, le=MOST_SEED)] = 0,
        count: Annotated[int, Form(ge=1, le=_MOST_SHOWN)] = 8,
    ) -> Response:
        """Generate images now; return them as a part of the page, or as a page."""
        classes = (label.strip(),) if label.strip() else ()
        begun = time.perf_counter()
        rows = await generated(request, model, GenerateBody(classes=classes, seed=seed, count=count))
        said = {"images": [as_text(row) for row in rows], "milliseconds": _ms(begun), "model": model}
        return await _answer(
            request, owned, "try_it/try_it_images.html", said | {"label": label, "seed": seed, "count": count}
        )

    return routes


async def _answer(request: Request, owned: Owned, part: str, said: dict[str, Any]) -> Response:
    if "hx-request" in request.headers:
        return page(request, part, **said)
    served = await anyio.to_thread.run_sync(_served, owned)
    return page(request, "try_it/try_it.html", **(_EMPTY | served | said | {"part": part}), chosen=said["model"])


def _served(owned: Owned) -> dict[str, Any]:
    """Return the served models that label images and those that make some, and why they are not known if so."""
    try:
        found, why = owned.client.served(), ""
    except (InvalidSettings, ServiceUnavailable) as error:
        found, why = [], str(of_error(error).detail)
    makers = [one for one in found if one.task == "generate"]
    return {"served": [one for one in found if one not in makers], "makers": makers, "why": why}


def _ms(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000
