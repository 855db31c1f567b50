"""A request and its reply, their limits, and the id that tells what a request weighs.

Whoever may write to Redis may have written them, so both are checked as they are read.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from contract.errors import RequestTooLarge
from contract.online.frames import MalformedFrameError, pack, unpack
from contract.records import ImageFormat, Record

MOST_IMAGES = 64
"""Images of one request, sent or asked for."""
MOST_BYTES = 16 * 2**20
"""Bytes of one request, all images together. Larger ones are for a job."""
MOST_WAITING_BYTES = 128 * 2**20
"""Bytes of all requests that have no reply yet; the next one is refused. The embedded Redis may hold twice as much."""
MOST_WAITING = 10_000
"""Requests that have no reply yet."""
DEADLINE_SECONDS, LONGEST_SECONDS = 10.0, 120.0
"""The deadline of a request that names none, and the longest."""
MOST_TOP_K = 1000
MOST_SEED, MOST_SIDE = 2**32 - 1, 4096
"""The bounds of a job's options."""
_HEADER_BYTES = 1024
"""Allowance for the header of a file and for its row in a reply."""
_HEAD_BYTES = 2**20
"""More than the names of all images take, where JSON writes each character in 12 bytes."""
_REPLY_HEAD_BYTES = 64 * 2**20

_ID = re.compile(r"([0-9a-f]{32})-(\d{1,3})-(\d{1,9})-([a-z0-9][a-z0-9-]{0,62}@\d{1,9})")
Name = Annotated[str, StringConstraints(max_length=1024)]
Asker = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


@dataclass(frozen=True)
class RequestId:
    """The name of a request, which says for what model it is and what it weighs, so that Redis can count both."""

    unique: str
    images: int
    size: int
    """Bytes of the payload."""
    model: str
    """`name@version`."""

    def __str__(self) -> str:
        return f"{self.unique}-{self.images}-{self.size}-{self.model}"

    @classmethod
    def new(cls, images: int, size: int, model: str) -> RequestId:
        """Return the id of a new request."""
        return cls(uuid.uuid4().hex, images, size, model)

    @classmethod
    def parse(cls, text: str) -> RequestId | None:
        """Return the id that a text is, or None."""
        match = _ID.fullmatch(text)
        return None if match is None else cls(match[1], int(match[2]), int(match[3]), match[4])


class Classify(Record):
    """Label the images that are sent along, one row each."""

    kind: Literal["classify"] = "classify"
    reply_to: Asker
    """The process that waits for the reply."""
    keys: tuple[Name, ...] = Field(min_length=1, max_length=MOST_IMAGES)
    """Names of the images, as they will be in the rows."""
    top_k: int = Field(5, ge=1, le=MOST_TOP_K)
    embed: bool = False


class Generate(Record):
    """Make the first images of a job with these options, and send their files along."""

    kind: Literal["generate"] = "generate"
    reply_to: Asker
    classes: tuple[Name, ...] = Field((), max_length=MOST_IMAGES)
    """Names of the classes over which the images are spread; empty: all."""
    seed: int = Field(0, ge=0, le=MOST_SEED)
    count: int = Field(1, ge=1, le=MOST_IMAGES)
    size: int = Field(0, ge=0, le=MOST_SIDE)
    """Side of the images in pixels; 0: the generator's own."""
    truncation: float | None = Field(None, gt=0)
    image_format: ImageFormat = "png"


Request = Annotated[Classify | Generate, Field(discriminator="kind")]
_REQUEST: TypeAdapter[Classify | Generate] = TypeAdapter(Request)


def write_request(request: Classify | Generate, images: Sequence[bytes] = ()) -> bytes:
    """Return the payload of a request; raises RequestTooLarge."""
    payload = pack(request.model_dump(exclude_defaults=True) | {"kind": request.kind}, images)
    if len(payload) > MOST_BYTES:
        raise RequestTooLarge(
            f"The request has {len(payload) / 2**20:.1f} MiB, and the online path takes {MOST_BYTES // 2**20} at most; "
            "send fewer or smaller images at a time, or label them with `imagemill classify`."
        )
    return payload


def bytes_of_images(count: int, side: int, channels: int) -> int:
    """Return how many bytes a reply with so many images may have; raises RequestTooLarge.

    That is what their pixels take: files are smaller, but for noise.
    """
    size = count * (side * side * channels + _HEADER_BYTES)
    if size > MOST_BYTES:
        raise RequestTooLarge(
            f"{count} images of {side} × {side} pixels have {size / 2**20:.1f} MiB, and the online path answers with "
            f"{MOST_BYTES // 2**20} at most; ask for fewer or smaller ones at a time, or run `imagemill generate`."
        )
    return size


def read_request(payload: bytes) -> tuple[Classify | Generate, list[bytes]]:
    """Return what a payload asks for, and its images; raises MalformedFrameError for what no Imagemill has sent."""
    if len(payload) > MOST_BYTES:
        raise MalformedFrameError("too large")
    head, images = unpack(payload, head_bytes=_HEAD_BYTES, pieces=MOST_IMAGES)
    try:
        request = _REQUEST.validate_python(head, strict=False)
    except ValidationError:
        raise MalformedFrameError("no request") from None
    if len(images) != (len(request.keys) if isinstance(request, Classify) else 0):
        raise MalformedFrameError("other images than it names")
    return request, images


class Reply(Record):
    """What a worker answers."""

    id: str
    outcome: Literal["done", "refused", "failed"]
    """`refused`: the request asks for what the model does not have; `failed`: the same request may succeed later."""
    says: str = ""
    """Why there are no results, in a sentence."""
    rows: tuple[dict[str, Any], ...] = ()
    """A row for each image: in the order of a `Classify`, or of the files that answer a `Generate`."""


def write_reply(reply: Reply, images: Sequence[bytes] = ()) -> bytes:
    """Return a reply as bytes; `images` are the files that answer a `Generate`."""
    return pack(reply.model_dump(exclude_defaults=True) | {"id": reply.id, "outcome": reply.outcome}, images)


def read_reply(data: bytes) -> tuple[Reply, list[bytes]]:
    """Return a reply and the images in it; raises MalformedFrameError."""
    head, images = unpack(data, head_bytes=_REPLY_HEAD_BYTES, pieces=MOST_IMAGES)
    try:
        return Reply.model_validate(head), images
    except ValidationError:
        raise MalformedFrameError("no reply") from None
