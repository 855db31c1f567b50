"""Brings the images of a request together: bytes of the body, or addresses that this server fetches with care."""

from __future__ import annotations

import base64
import binascii
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from contract.data.items import parse_s3
from contract.data.label_rows import ERROR, schema
from contract.errors import (
    Expired,
    ImageError,
    ImagemillError,
    ImageNotFound,
    ObjectNotFound,
    RequestTooLarge,
    TooManyBytes,
    code_of,
)
from contract.jobs.results import Row
from contract.online.messages import DEADLINE_SECONDS, LONGEST_SECONDS, MOST_BYTES, MOST_IMAGES, MOST_TOP_K
from contract.records import Record
from contract.web.client import WebClient
from producer.web.online.held import Holding, holding_of
from producer.web.owned import Owned
from producer.web.problems import Problem
from producer.web.sources import ADDRESS, LONGEST, address_of

LARGE_BYTES = math.ceil(MOST_BYTES * 1.5)
"""Most bytes of a request body; base64 makes images a third larger."""
_AT_ONCE = 8
"""Images that are fetched at once for one request."""
_FETCHERS = anyio.CapacityLimiter(16)
"""Images that are fetched at once, for all: threads of their own, since hosts may be slow, and 16 MiB each."""
_JSON, _FORM = "application/json", "multipart/form-data"
_RAW = ("image/", "application/octet-stream")

Address = Annotated[str, StringConstraints(max_length=LONGEST)]


class Image(Record):
    """One image: exactly one of `base64`, `s3` and `url`."""

    base64: str | None = Field(None, description="The bytes of the file, in base64.")
    s3: Annotated[str, StringConstraints(pattern=ADDRESS, max_length=LONGEST)] | None = Field(
        None, description="Its `s3://` address."
    )
    url: Address | None = Field(None, description="Its public web address.")
    key: Annotated[str, StringConstraints(max_length=1024)] | None = Field(None, description="Its name in the row.")


class Asked(Record):
    """What is asked of the model."""

    top_k: int = Field(5, ge=1, le=MOST_TOP_K, description="Labels per image.")
    embed: bool = Field(False, description="Add the embedding of each image to its row.")
    deadline: float = Field(
        DEADLINE_SECONDS, gt=0, le=LONGEST_SECONDS, description="Seconds within which the answer is of use."
    )


class ImagesBody(Asked):
    """Images to be labelled, as JSON."""

    images: tuple[Image, ...] = Field(min_length=1, max_length=MOST_IMAGES)


class HuggingFaceBody(Record):
    """An image to be labelled, as Hugging Face's inference API has it."""

    inputs: str = Field(description="The bytes of the file, in base64.")
    parameters: dict[str, Any] = Field(default_factory=dict)


@dataclass
class Images:
    """Images by their place in the request; those that could not be had are rows already."""

    asked: Asked
    until: float
    """When the answer is no longer of use, by the monotonic clock."""
    one: bool = False
    """Whether the body was one image, so that the answer is one row."""
    keys: list[str] = field(default_factory=list)
    found: dict[int, bytes] = field(default_factory=dict)
    failed: dict[int, Row] = field(default_factory=dict)

    def add(self, key: str, data: bytes) -> None:
        self.found[len(self.keys)] = data
        self.keys.append(key)

    @property
    def left(self) -> Asked:
        """What is asked of the model, with the time that is left; raises Expired if none is."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise _late(self.asked)
        return self.asked.model_copy(update={"deadline": left})

    def rows(self, labelled: Sequence[Row]) -> list[Row]:
        """Return all rows in the order of the request, given those of the images that were found."""
        there = dict(zip(self.found, labelled, strict=True))
        return [there.get(n) or self.failed[n] for n in range(len(self.keys))]


async def read_images(request: Request, asked: Asked, owned: Owned, web: WebClient) -> Images:
    """Return the images of a request; raises Problem 400, 413, 415 or 422 for a body that has none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(_RAW):
        images = Images(asked, _until(asked), one=True)
        images.add("0", await request.body())
        if not images.found[0]:
            raise Problem(400, "The body has no bytes; send the file of an image.")
    elif kind == _FORM:
        images = Images(asked, _until(asked))
        await _read_form(request, images)
    elif kind == _JSON:
        images = await _read_json(await request.body(), asked, owned, web, holding_of(request))
    else:
        raise Problem(
            415, "This takes one image as image/* or application/octet-stream, many as multipart/form-data, or JSON."
        )
    if sum(map(len, images.found.values())) > MOST_BYTES:
        raise RequestTooLarge(
            f"The images have more than {MOST_BYTES // 2**20} MiB together; send fewer at a time, or submit a job."
        )
    return images


async def _read_form(request: Request, images: Images) -> None:
    try:
        async with request.form(max_files=MOST_IMAGES, max_fields=MOST_IMAGES) as form:
            for name, part in form.multi_items():
                if not isinstance(part, UploadFile):  # left out, it would have no row
                    raise Problem(422, f"The part {name[:100]!r} of the form is no file; add each image as a file.")
                images.add((part.filename or str(len(images.keys)))[:1024], await part.read())
    except HTTPException as error:
        if isinstance(error, Problem) or not str(error.detail).startswith("Too many files"):
            raise
        raise RequestTooLarge(
            f"A request has {MOST_IMAGES} images at most; send fewer at a time, or submit a job."
        ) from None
    if not images.keys:
        raise Problem(422, "The form has no files; add each image as a file.")


_BODY: TypeAdapter[ImagesBody | HuggingFaceBody] = TypeAdapter(ImagesBody | HuggingFaceBody)


async def _read_json(body: bytes, asked: Asked, owned: Owned, web: WebClient, holding: Holding) -> Images:
    try:
        given = _BODY.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        if first["type"] == "json_invalid":
            raise Problem(400, "The body is no JSON; correct it.", code="invalid_json") from None
        place = "/".join(str(part) for part in first["loc"][1:])
        raise Problem(422, f"/{place}: {first['msg'].lower()}; send images as /openapi.json says.") from None
    if isinstance(given, HuggingFaceBody):
        top_k = given.parameters.get("top_k", asked.top_k)
        if type(top_k) is not int or not 1 <= top_k <= MOST_TOP_K:
            raise Problem(422, f"/parameters/top_k: it is 1 to {MOST_TOP_K}; correct it.")
        images = Images(asked.model_copy(update={"top_k": top_k}), _until(asked), one=True)
        images.add("0", _decoded(given.inputs, "/inputs"))
        return images
    asked = Asked(**given.model_dump(include=set(Asked.model_fields)))
    images = Images(asked, _until(asked))
    for number, image in enumerate(given.images):
        if sum(one is not None for one in (image.base64, image.s3, image.url)) != 1:
            raise Problem(422, f"/images/{number}: an image has one of base64, s3 and url; send exactly one.")
        if image.base64 is not None:
            images.found[number] = _decoded(image.base64, f"/images/{number}/base64")
        if image.s3 is not None:
            await anyio.to_thread.run_sync(address_of, image.s3, owned)
        images.keys.append(image.key or image.s3 or image.url or str(number))
    left = images.until - time.monotonic()
    with anyio.move_on_after(left) as scope:
        await _fetch_all(images, given.images, partial(_fetch, owned=owned, web=web, within=left), holding)
    if scope.cancelled_caught:
        raise _late(asked)
    return images


async def _fetch_all(
    images: Images, wanted: Sequence[Image], fetch_one: Callable[[Image], bytes], holding: Holding
) -> None:
    lanes = anyio.Semaphore(_AT_ONCE)
    broken: list[ImagemillError | Problem] = []
    held = sum(map(len, images.found.values()))

    async def fetch(number: int, image: Image) -> None:
        nonlocal held
        async with lanes:
            if held > MOST_BYTES or broken:
                return  # the request is refused
            try:
                images.found[number] = await anyio.to_thread.run_sync(
                    fetch_one, image, abandon_on_cancel=True, limiter=_FETCHERS
                )
                holding.take(len(images.found[number]))
                held += len(images.found[number])
            except ImageError as error:
                images.failed[number] = _failed(image, images.keys[number], error)
            except (ImagemillError, Problem) as error:  # of a server, which says nothing about the image
                broken.append(error)

    async with anyio.create_task_group() as group:
        for number, image in enumerate(wanted):
            if image.base64 is None:
                group.start_soon(fetch, number, image)
    if broken:
        raise broken[0]
    images.found = dict(sorted(images.found.items()))


def _decoded(text: str, pointer: str) -> bytes:
    data = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, f"{pointer}: it is no base64; encode the bytes of the file.") from None


def _fetch(image: Image, owned: Owned, web: WebClient, within: float) -> bytes:
    most = min(MOST_BYTES, owned.client.settings.max_image_bytes)
    if image.url is not None:
        # A little longer than the request waits, so that the request expires, and the image is not blamed.
        return web.read(image.url, most, within=within + 1.0)
    bucket, key = parse_s3(str(image.s3))
    try:
        data = owned.client.backend.store.get(key, bucket=bucket, limit=most)
    except ObjectNotFound:
        raise ImageNotFound(f"There is no object {image.s3}; correct the address.") from None
    if len(data) > most:
        raise TooManyBytes(f"{image.s3} has more than {most:,} bytes.")
    return data


def _until(asked: Asked) -> float:
    return time.monotonic() + asked.deadline


def _late(asked: Asked) -> Expired:
    return Expired(f"The images were not here within {asked.deadline:g} s; allow more time, or try again.")


def _failed(image: Image, key: str, error: ImageError) -> Row:
    empty: Row = dict.fromkeys(schema().names)
    said = {"status": ERROR, "error_code": code_of(error), "error_message": str(error)}
    return {**empty, "key": key, "uri": image.s3 or image.url, **said}
