"""Counts what is answered with an error: requests that are refused, and those that a server behind this one fails.

What a client is not told, such as addresses of servers, goes to the log and the trace.
"""

from __future__ import annotations

import logging

from contract import errors
from contract.errors import ImagemillError
from contract.instruments import HTTP_REFUSALS, HTTP_UPSTREAM_ERRORS
from contract.telemetry import traces
from producer.web.problems import Problem

log = logging.getLogger(__name__)

_REASONS = {
    401: "token",
    403: "forbidden",
    408: "slow",
    413: "too_large",
    421: "host",
    429: "rate",
    431: "headers",
    503: "busy",
}
"""Why a request is refused, by the status of the answer."""
_SERVICES: dict[type[ImagemillError], str] = {
    errors.RedisUnavailable: "redis",
    errors.StoreUnavailable: "store",
    errors.CredentialsRefused: "store",
    errors.StoreRefused: "store",
    errors.OnlineFailed: "worker",
    errors.Expired: "worker",
}
"""The server that did not do its part."""


def note(problem: Problem, request_id: str) -> None:
    """Count the error that a request is answered with, once, and log it; what only its client got wrong is neither."""
    error = problem.error
    # Under overload a line for each refusal would be one more burden; they are counted.
    if error is not None and problem.status_code >= 500 and not isinstance(error, errors.Overloaded):
        log.warning("Request %s: %s", request_id, error)
        traces.fail(error)
    if isinstance(error, errors.Overloaded):
        HTTP_REFUSALS.add(1, "overloaded")
    elif service := next((name for kind, name in _SERVICES.items() if isinstance(error, kind)), ""):
        HTTP_UPSTREAM_ERRORS.add(1, service)
    elif (reason := _REASONS.get(problem.status_code, "")) and not (error and problem.status_code == 503):
        HTTP_REFUSALS.add(1, reason)
