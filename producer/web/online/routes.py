"""Answers at once: single images labelled by served models (`imagemill serve`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from contract.data.label_rows import ERROR
from contract.errors import OnlineFailed
from contract.jobs.results import Row
from contract.online.messages import DEADLINE_SECONDS, LONGEST_SECONDS
from contract.online.state import ServedState
from contract.records import Precision, Record
from producer.exports.labels.source import rounded
from producer.web.online.images import Asked, HuggingFaceBody, ImagesBody, read_images
from producer.web.owned import Infer, Jobs, Review
from producer.web.problems import Problem
from producer.web.v1.models import Ref

if TYPE_CHECKING:
    from producer.web.app import Api

HUGGING_FACE = "application/vnd.huggingface+json"
"""Who accepts this gets the labels alone, as Hugging Face's inference API has them."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}
BODIES = (ImagesBody, HuggingFaceBody)
"""What JSON may be."""
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {"schema": {"type": "object", "additionalProperties": {"format": "binary"}}},
            "application/json": {
                "schema": {
                    "anyOf": [{"$ref": f"#/components/schemas/{body.__name__}"} for body in BODIES],
                }
            },
        },
    }
}
_ROW = {"schema": {"type": "object", "description": "A row with the columns of a job's rows, or `rows` of many."}}
_LABEL = {"type": "object", "properties": {"label": {"type": "string"}, "score": {"type": "number"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The row of one image, or `rows`, one for each image in order; a bad image is a row too.",
        "content": {"application/json": _ROW, HUGGING_FACE: {"schema": {"type": "array", "items": _LABEL}}},
    }
}


class ServeBody(Record):
    """A model that is to answer single requests."""

    model: str = Field(max_length=200, description="`name`, `name@version` or `name@alias`.")
    precision: Precision = Field("auto", description="Arithmetic of the model.")


async def asked(
    top_k: Annotated[int, Query(ge=1, le=1000, description="Labels per image.")] = 5,
    embed: Annotated[bool, Query(description="Add the embedding of each image to its row.")] = False,
    deadline: Annotated[
        float, Query(gt=0, le=LONGEST_SECONDS, description="Seconds within which the answer is of use.")
    ] = DEADLINE_SECONDS,
) -> Asked:
    """Return what the query of a request asks for."""
    return Asked(top_k=top_k, embed=embed, deadline=deadline)


def router() -> APIRouter:
    """Return the routes of served models."""
    routes = APIRouter(prefix="/v1", tags=["online"])

    @routes.post("/models/{ref}/classify", responses=_ANSWERS, openapi_extra=_BODY)
    async def classify(
        request: Request,
        owned: Infer,
        ref: Ref,
        wanted: Annotated[Asked, Depends(asked)],
        accept: Annotated[str, Header(description=f"`{HUGGING_FACE}` for labels alone.")] = "",
    ) -> Response:
        """Label images now, with a served model: one as the body, many as files of a form, or JSON."""
        api: Api = request.app
        images = await read_images(request, wanted, owned, api.web)
        rows = await labelled(api, ref, images.keys, images.found, images.left)
        found = images.rows(rows)
        if HUGGING_FACE in accept:
            return _hugging_face(found)
        return JSONResponse(rounded(found[0] if images.one else {"rows": found}))

    @routes.get("/served")
    def list_served(owned: Review) -> list[ServedState]:
        """Return the served models by name, and how each stands."""
        return owned.client.served()

    @routes.post("/served", status_code=201)
    def serve_model(owned: Jobs, body: ServeBody) -> ServedState:
        """Have workers keep a model loaded, and answer single requests with it."""
        return owned.client.serve(body.model, precision=body.precision)

    @routes.delete("/served/{ref}")
    def unserve_model(owned: Jobs, ref: Ref) -> list[str]:
        """Answer no more requests with `name@version`, or with every version of `name`; return what was served."""
        return owned.unserve(ref)

    return routes


async def labelled(api: Api, ref: str, keys: list[str], found: dict[int, bytes], wanted: Asked) -> list[Row]:
    """Return the rows of the images that were found."""
    if not found:
        await api.online().resolve(ref)
        return []
    names = [keys[place] for place in found]
    return await api.online().classify(
        ref, list(found.values()), keys=names, top_k=wanted.top_k, embed=wanted.embed, deadline=wanted.deadline
    )


def _hugging_face(rows: list[Row]) -> Response:
    for row in rows:
        if row["status"] == ERROR:
            raise Problem(422, str(row["error_message"]), code=str(row["error_code"]))
    if any(not isinstance(row.get("top_k"), list) for row in rows):
        raise OnlineFailed("A worker answered without labels; try again.")
    labels = [[{"label": one["label"], "score": one["score"]} for one in row["top_k"]] for row in rows]
    return JSONResponse(rounded(labels[0] if len(rows) == 1 else labels), media_type=HUGGING_FACE)
