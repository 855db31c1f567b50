"""The Open Inference Protocol (KServe v2) for served classifiers, so that its clients need no other one.

A model has one input, `image`, a tensor BYTES [n] of image files, and outputs of n elements each. In JSON a file is in
base64; with the binary extension (`Inference-Header-Content-Length`) it is as it is. Answers are JSON.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from contract.models.registry import imagemill_version
from contract.online.messages import DEADLINE_SECONDS, MOST_IMAGES
from contract.online.served import Served, check_task
from producer.exports.labels.source import rounded
from producer.web.online.images import Asked
from producer.web.online.routes import labelled
from producer.web.owned import Infer
from producer.web.problems import Problem

if TYPE_CHECKING:
    from producer.web.app import Api

_OUTPUTS = {"label": "BYTES", "label_index": "INT32", "score": "FP32", "status": "BYTES", "error_message": "BYTES"}
_INPUT = "image"
_TENSOR = {"schema": {"type": "object"}}

Name = Annotated[str, Path(max_length=64, description="Name of a model.")]
Version = Annotated[str, Path(max_length=64, description="Its version, or an alias.")]


class Tensor(BaseModel):
    """An input of a request."""

    model_config = ConfigDict(extra="ignore")

    name: str
    shape: list[Annotated[int, Field(ge=-(2**31), lt=2**31)]] = Field(max_length=4)
    datatype: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class Wanted(BaseModel):
    """An output that a request asks for."""

    model_config = ConfigDict(extra="ignore")

    name: str


class Inference(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Wanted] | None = None


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """A served model, as the protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


def router() -> APIRouter:
    """Return the routes of the protocol."""
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])

    @routes.get("")
    async def get_server() -> ServerMetadata:
        """Return what this server is and what it knows of the protocol."""
        return ServerMetadata(name="imagemill", version=imagemill_version(), extensions=["binary_tensor_data"])

    @routes.get("/health/live", response_class=Response)
    async def is_live() -> Response:
        """Answer 200 as long as this server does."""
        return Response()

    @routes.get("/health/ready", response_class=Response, responses={503: {"description": "It is not."}})
    def is_ready(request: Request) -> Response:
        """Answer 200 if Redis and the object store answer too."""
        api: Api = request.app
        return Response(status_code=503 if api.ready.reasons() else 200)

    async def model(request: Request, owned: Infer, name: Name) -> ModelMetadata:
        """Return a served model, as the protocol describes it."""
        return await _metadata(request.app, name)

    async def model_version(request: Request, owned: Infer, name: Name, version: Version) -> ModelMetadata:
        """Return a version of a served model, as the protocol describes it."""
        return await _metadata(request.app, f"{name}@{version}")

    async def model_ready(request: Request, owned: Infer, name: Name) -> Response:
        """Answer 200 if a model is served."""
        await _classifier(request.app, name)
        return Response()

    async def model_version_ready(request: Request, owned: Infer, name: Name, version: Version) -> Response:
        """Answer 200 if a version of a model is served."""
        await _classifier(request.app, f"{name}@{version}")
        return Response()

    async def infer(
        request: Request, owned: Infer, name: Name, inference_header_content_length: _Length = ""
    ) -> Response:
        """Label images with a served model."""
        return await _infer(request, name, inference_header_content_length)

    async def infer_version(
        request: Request, owned: Infer, name: Name, version: Version, inference_header_content_length: _Length = ""
    ) -> Response:
        """Label images with a version of a served model."""
        return await _infer(request, f"{name}@{version}", inference_header_content_length)

    body = {"requestBody": {"required": True, "content": {"application/json": _TENSOR}}}
    answer: dict[int | str, dict[str, Any]] = {
        200: {"description": "Outputs of n elements each.", "content": {"application/json": _TENSOR}}
    }
    routes.add_api_route("/models/{name}", model, methods=["GET"])
    routes.add_api_route("/models/{name}/ready", model_ready, methods=["GET"], response_class=Response)
    routes.add_api_route("/models/{name}/versions/{version}", model_version, methods=["GET"])
    routes.add_api_route(
        "/models/{name}/versions/{version}/ready", model_version_ready, methods=["GET"], response_class=Response
    )
    routes.add_api_route("/models/{name}/infer", infer, methods=["POST"], openapi_extra=body, responses=answer)
    routes.add_api_route(
        "/models/{name}/versions/{version}/infer", infer_version, methods=["POST"], openapi_extra=body, responses=answer
    )
    return routes


_Length = Annotated[str, Header(pattern=r"^\d{0,12}$", description="Bytes of JSON before the binary data.")]


async def _classifier(api: Api, ref: str) -> Served:
    """Return a served model that labels images; raises NotServed, and InvalidInput for a generator."""
    served = await api.online().resolve(ref)
    check_task(served, ("classify", "classify-sequence"))
    return served


async def _metadata(api: Api, ref: str) -> ModelMetadata:
    served = await _classifier(api, ref)
    return ModelMetadata(
        name=served.name,
        versions=[str(served.version)],
        platform="imagemill",
        inputs=[{"name": _INPUT, "datatype": "BYTES", "shape": [-1]}],
        outputs=[{"name": name, "datatype": kind, "shape": [-1]} for name, kind in _OUTPUTS.items()],
    )


async def _infer(request: Request, ref: str, header: str) -> Response:
    body = await request.body()
    length = int(header) if header else len(body)
    if length > len(body):
        raise Problem(400, "Inference-Header-Content-Length is more than the body has; correct it.")
    try:
        asked = Inference.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "/".join(map(str, first["loc"]))
        raise Problem(400, f"/{place}: {first['msg'].lower()}; send a request as the protocol has it.") from None
    wanted = [one.name for one in asked.outputs or ()] or list(_OUTPUTS)
    if unknown := [name for name in wanted if name not in _OUTPUTS]:
        raise Problem(400, f"There is no output {unknown[0][:100]!r}; the outputs are {', '.join(_OUTPUTS)}.")
    images = _images(asked.inputs[0], body[length:])
    keys = [str(n) for n in range(len(images))]
    served = await _classifier(request.app, ref)
    wish = Asked(top_k=1, embed=False, deadline=DEADLINE_SECONDS)
    rows = await labelled(request.app, served.ref, keys, dict(enumerate(images)), wish)
    outputs = [
        {
            "name": name,
            "datatype": _OUTPUTS[name],
            "shape": [len(rows)],
            "data": [_element(row.get(name), _OUTPUTS[name]) for row in rows],
        }
        for name in wanted
    ]
    found: dict[str, Any] = {"model_name": served.name, "model_version": str(served.version), "outputs": outputs}
    return JSONResponse(rounded({"id": asked.id, **found} if asked.id else found))


def _element(value: Any, kind: str) -> Any:
    """Return an element of a tensor, which cannot be null."""
    if value is None:
        return {"BYTES": "", "INT32": -1, "FP32": 0.0}[kind]
    return value


def _images(tensor: Tensor, binary: bytes) -> list[bytes]:
    if tensor.name != _INPUT or tensor.datatype != "BYTES":
        raise Problem(400, f"The input is {_INPUT!r}, of the datatype BYTES; send image files.")
    size = tensor.parameters.get("binary_data_size")
    if len(tensor.data or ()) > MOST_IMAGES:
        raise _too_many()
    images = _unpacked(binary, size) if size is not None else [_decoded(one) for one in tensor.data or ()]
    count = 1
    for side in tensor.shape:
        count *= side
    if not images or count != len(images) or min(tensor.shape, default=1) < 0:
        raise Problem(400, f"The shape says {count} images and there are {len(images)}; make them agree.")
    return images


def _unpacked(binary: bytes, size: Any) -> list[bytes]:
    """Return the elements of a BYTES tensor, each behind its length in four bytes, little-endian."""
    if type(size) is not int or size != len(binary):
        raise Problem(400, "binary_data_size is not what follows the JSON; correct it.")
    images, place = list[bytes](), 0
    while place < size:
        length = int.from_bytes(binary[place : place + 4], "little")
        if place + 4 + length > size:
            raise Problem(400, "An element of the tensor ends behind the body; correct its length.")
        if len(images) == MOST_IMAGES:  # one may be four bytes
            raise _too_many()
        images.append(binary[place + 4 : place + 4 + length])
        place += 4 + length
    return images


def _too_many() -> Problem:
    return Problem(413, f"A request has {MOST_IMAGES} images at most; send fewer at a time.")


def _decoded(one: Any) -> bytes:
    try:
        return base64.b64decode(one, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Problem(400, "An element of the tensor is no base64; encode the bytes of the file.") from None
