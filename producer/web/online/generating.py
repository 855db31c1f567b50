"""Images made at once by served generators: what a request may ask for, and the forms of its answer."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import Field, StringConstraints
from starlette.responses import Response, StreamingResponse

from contract.jobs.results import Row
from contract.online.messages import DEADLINE_SECONDS, LONGEST_SECONDS, MOST_IMAGES, MOST_SEED, MOST_SIDE
from contract.records import ImageFormat, Record
from producer.web.online.held import holding_of
from producer.web.owned import Infer
from producer.web.v1.models import Ref

if TYPE_CHECKING:
    from producer.web.app import Api

_JSON = "application/json"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ROWS = {"schema": {"type": "object", "description": "`images`: a row for each, with its file in base64 in `image`."}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file of one image; rows of many, or of one for who accepts JSON alone.",
        "content": {"image/png": _BINARY, "image/webp": _BINARY, "image/jpeg": _BINARY, _JSON: _ROWS},
    }
}


class GenerateBody(Record):
    """Images to be generated: the first of the job with these options."""

    classes: tuple[Annotated[str, StringConstraints(max_length=1024)], ...] = Field(
        (), max_length=MOST_IMAGES, description="Classes over which the images are spread evenly. Default: all."
    )
    seed: int = Field(0, ge=0, le=MOST_SEED, description="Seed of the latents.")
    count: int = Field(1, ge=1, le=MOST_IMAGES, description="Images in all.")
    size: int = Field(0, ge=0, le=MOST_SIDE, description="Side of the images in pixels; 0: the generator's own.")
    truncation: float | None = Field(
        None, gt=0, description="Keep latents within ±X: better images, less variety. Default: no limit."
    )
    image_format: ImageFormat = Field("png", description="File format of the images.")
    deadline: float = Field(
        DEADLINE_SECONDS, gt=0, le=LONGEST_SECONDS, description="Seconds within which the answer is of use."
    )


def router() -> APIRouter:
    """Return the route of served generators."""
    routes = APIRouter(prefix="/v1", tags=["online"])

    @routes.post("/models/{ref}/generate", response_class=Response, responses=_ANSWERS)
    async def generate(
        request: Request,
        owned: Infer,
        ref: Ref,
        body: GenerateBody | None = None,
        accept: Annotated[str, Header(description=f"`{_JSON}` for the row of one image too.")] = "",
    ) -> Response:
        """Generate images now, with a served model: the same bytes as a job with these options, model and seed."""
        wanted = body or GenerateBody()
        rows = await generated(request, ref, wanted)
        if len(rows) == 1 and _JSON not in accept:
            return Response(rows[0]["image"], media_type=f"image/{wanted.image_format}")
        return StreamingResponse(_pieces(rows), media_type=_JSON)

    return routes


async def generated(request: Request, ref: str, wanted: GenerateBody) -> list[Row]:
    """Return the rows of the images that a request asks for, each with its file in `image`."""
    api: Api = request.app
    return await api.online().generate(ref, **wanted.model_dump(), room=holding_of(request).take)


async def _pieces(rows: Sequence[Row]) -> AsyncIterator[str]:
    """Yield the answer image by image, so that base64 of all of them never lies in memory."""
    for n, row in enumerate(rows):
        yield ("," if n else '{"images":[') + json.dumps(as_text(row), separators=(",", ":"))
    yield "]}"


def as_text(row: Row) -> Row:
    """Return a row with its file in base64."""
    return {**row, "image": base64.b64encode(row["image"]).decode()}
