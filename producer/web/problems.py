"""Errors as clients of the HTTP API see them: problem details (RFC 9457) with a stable `code` and one sentence.

The code is the name of an error class in `contract.errors`, or one of `CODES` for what only HTTP knows. What is wrong
on the server is said without addresses, paths or traces; the log has them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from contract import errors
from contract.errors import ImagemillError, code_of
from contract.jobs.options import COMMANDS
from contract.printable import printable
from producer.web.fields import named

MEDIA_TYPE = "application/problem+json"
AGAIN_SECONDS = 5
"""What `Retry-After` says where nothing better is known."""
_MOST_FAULTS = 20
SOURCES = frozenset({"source", "reconstruct", "away_from", "interpolate"})
"""The fields that name images."""
_LONGEST = 1000
_TAGS = ("union_tag_invalid", "union_tag_not_found")
"""What pydantic says of a body whose field `command` names no member of the union."""

CODES: dict[int, str] = {
    400: "bad_request",
    401: "token_refused",
    403: "token_refused",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    411: "length_required",
    413: "body_too_large",
    415: "unsupported_media_type",
    421: "wrong_host",
    422: "invalid_input",
    429: "too_many_requests",
    431: "headers_too_large",
    500: "internal_error",
    503: "service_unavailable",
    504: "deadline_exceeded",
}
"""The code of an answer for which no error class speaks."""

_STATUS: Sequence[tuple[type[ImagemillError], int]] = (
    (errors.TokenRefused, 403),
    (errors.TooManyRequests, 429),
    (errors.NotOwner, 403),
    (errors.JobConflict, 409),
    (errors.UnknownJob, 404),
    (errors.UnknownModel, 404),
    (errors.UnknownSchedule, 404),
    (errors.UnknownWatch, 404),
    (errors.UnknownDataset, 404),
    (errors.UnknownUpload, 404),
    (errors.UnknownWebhook, 404),
    (errors.UnknownToken, 404),
    (errors.NotServed, 404),
    (errors.RequestTooLarge, 413),
    (errors.Expired, 504),
    (errors.InvalidSettings, 503),
    (errors.InvalidInput, 422),
    (errors.ServiceUnavailable, 503),
    (errors.StoreFull, 507),
    (errors.StoreRefused, 503),
    (errors.ImageError, 422),
)
_OF_THE_SERVER: dict[type[ImagemillError], str] = {
    errors.RedisUnavailable: "The queue of this server does not answer; try again in a moment.",
    errors.StoreUnavailable: "The object store of this server does not answer; try again in a moment.",
    errors.CredentialsRefused: "The object store of this server refuses its credentials; tell its operator.",
    errors.InvalidSettings: "This server may not reach what the request needs; tell its operator.",
    errors.StoreFull: "The object store of this server is full; tell its operator.",
    errors.StoreRefused: "The object store of this server refuses what the request needs; tell its operator.",
}
"""What is said of errors whose own message holds addresses of the server."""
_INTERNAL = "This request failed on the server; its log has the reason under this request id."


class Fault(BaseModel):
    """One field of a request that is wrong."""

    pointer: str = Field(description="JSON pointer to the field in the body, or the name of a parameter.")
    detail: str = Field(description="What is wrong with it.")


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="`urn:imagemill:error:` and the code.")
    title: str = Field(description="The phrase of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="What went wrong, in a word that never changes.")
    detail: str = Field(description="What happened, to which object, why, and what to do, in one sentence.")
    request_id: str | None = Field(None, description="Names the request in the log of the server.")
    error: str | None = Field(None, description="`detail` again, for clients of the Open Inference Protocol.")
    errors: list[Fault] | None = Field(None, description="The fields that are wrong, for `invalid_input`.")


class Problem(HTTPException):
    """An answer that says what is wrong; it passes through FastAPI's own handling of bodies."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        headers: Mapping[str, str] | None = None,
        faults: Sequence[Fault] = (),
        error: ImagemillError | None = None,
    ) -> None:
        """`error` is what it speaks for, where that is one of ours."""
        super().__init__(status, detail, dict(headers or {}))
        self.error = error
        self.code = code or CODES.get(status) or "error"
        self.faults = faults

    def response(self, request_id: str = "", *, protocol: bool = False) -> Response:
        """Return this as an HTTP response; with `protocol`, what is said is also where the Open Inference Protocol has
        it, in `error`."""
        body: dict[str, Any] = {
            "type": f"urn:imagemill:error:{self.code}",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "code": self.code,
            "detail": printable(str(self.detail))[:_LONGEST],
        }
        if request_id:
            body["request_id"] = request_id
        if protocol:
            body["error"] = body["detail"]
        if self.faults:
            body["errors"] = [fault.model_dump() for fault in self.faults]
        text = json.dumps(body, ensure_ascii=True)
        return Response(text, self.status_code, dict(self.headers or {}), media_type=MEDIA_TYPE)


def of_error(error: ImagemillError) -> Problem:
    """Return what a client is told of one of our errors."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    said = next((text for kind, text in _OF_THE_SERVER.items() if isinstance(error, kind)), "")
    again = math.ceil(error.retry_after) if isinstance(error, errors.Overloaded) else AGAIN_SECONDS
    headers = {"Retry-After": str(max(1, again))} if status == 503 else {}
    spoken = said or (named(str(error)) if status in (503, 504, *range(400, 500)) else _INTERNAL)
    return Problem(status, spoken, code=code_of(error), headers=headers, error=error)


def of_validation(error: RequestValidationError) -> Problem:
    """Return what a client is told of a request that does not fit the OpenAPI document; nothing of it is repeated."""
    found = error.errors()
    if found and found[0].get("type") == "json_invalid":
        return Problem(400, "The body is no JSON; correct it.", code="invalid_json")
    if isinstance(error.body, bytes) and error.body:  # FastAPI parses what is said to be JSON
        return Problem(415, "This takes JSON; send the body with `Content-Type: application/json`.")
    faults = [_fault(one) for one in found[:_MOST_FAULTS]]
    first = faults[0] if faults else Fault(pointer="", detail="it cannot be read")
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Problem(422, f"{first.pointer or 'The request'}: {first.detail}{more}; correct it.", faults=faults)


def of_http(error: HTTPException) -> Problem:
    """Return what a client is told where a framework refused the request."""
    if isinstance(error, Problem):
        return error
    said = {
        400: "The body of the request cannot be read; correct it.",
        404: "There is no such page; /openapi.json describes what there is.",
        405: "This method is not answered here; `Allow` names those that are.",
        413: "The body is too large; send less.",
    }.get(error.status_code, f"The request was refused ({HTTPStatus(error.status_code).phrase}).")
    return Problem(error.status_code, said, headers=error.headers)


def internal() -> Problem:
    """Return what a client is told of an error that nobody foresaw."""
    return Problem(500, _INTERNAL)


def _fault(found: Mapping[str, Any]) -> Fault:
    place, *rest = found.get("loc") or ("",)
    # A union of bodies names its member on the way to a field.
    path = [str(part) for part in rest if part not in COMMANDS]
    if found.get("type") in _TAGS:
        path.append("command")
    pointer = "/" + "/".join(path) if place == "body" else ".".join(path) or str(place)
    return Fault(pointer=printable(pointer)[:200], detail=printable(_said(found))[:400])


def _said(found: Mapping[str, Any]) -> str:
    if found.get("type") in _TAGS:
        return f"it is none of {', '.join(COMMANDS)}"
    if found.get("type") == "string_pattern_mismatch":
        if str(found["loc"][-1]) in SOURCES:
            uploads = "upload:" in str(found.get("ctx", {}).get("pattern"))
            other = ", or upload files and write upload:ID, for" if uploads else ";"
            return f"it names no object; write s3://bucket/prefix{other} this server reads no files of its own"
        return "it has another form than /openapi.json says"
    text = str(found.get("msg", "it is invalid")).removeprefix("Value error, ").removeprefix("Input ")
    return named(text[:1].lower() + text[1:])
