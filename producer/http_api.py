"""The HTTP API as a client sees it: requests, answers in JSON, streams, and our errors for what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter

from contract import errors
from contract.errors import ImagemillError, InvalidInput, ServiceUnavailable, code_of
from contract.jobs.results import Row

T = TypeVar("T", bound=BaseModel)

_ERRORS = {
    code_of(kind): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ImagemillError) and not issubclass(kind, errors.ImageError)
}


OPEN = "open"
"""The kind of the event that says that a stream has begun, as a browser's EventSource has it."""


class Event(NamedTuple):
    """A server-sent event of a job."""

    kind: str
    id: str
    data: str


class HttpApi:
    """Connections to one API. Every method raises the error that the API names, or ServiceUnavailable if it does not
    answer, also in the middle of a stream."""

    def __init__(self, url: str, token: str, *, timeout: float) -> None:
        self._http = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout)
        self._store = httpx2.Client(timeout=timeout)
        """For uploads, whose addresses must not see the token."""

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._store.close()

    def send(self, method: str, path: str, **how: Any) -> httpx2.Response:
        """Send a request and return the answer, read whole."""
        with self._answering():
            answer = self._http.request(method, path, **how)
        _check(answer)
        return answer

    def json(self, method: str, path: str, **how: Any) -> Any:
        """Return an answer's JSON."""
        return self.send(method, path, **how).json()

    def one(self, kind: type[T], method: str, path: str, **how: Any) -> T:
        """Return the record that an answer holds."""
        return kind.model_validate_json(self.send(method, path, **how).content)

    def many(self, kind: type[T], method: str, path: str, **how: Any) -> list[T]:
        """Return the records that an answer holds."""
        return TypeAdapter(list[kind]).validate_json(self.send(method, path, **how).content)  # type: ignore[valid-type]

    def rows(self, path: str, **params: str) -> Iterator[Row]:
        """Yield the objects of JSON lines as they come."""
        for line in self._lines(path, params=params):
            if line:
                yield json.loads(line)

    def events(self, path: str, last: str) -> Iterator[Event]:
        """Yield `OPEN` and then the events behind the one whose id is `last`, until the stream ends."""
        event: dict[str, str] = {}
        for line in self._lines(path, headers={"Last-Event-ID": last}):
            if line is None:
                yield Event(OPEN, "", "")
                continue
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
                continue
            if event.get("event") == "error":
                raise _error(json.loads(event["data"]), 0)
            if "data" in event:
                yield Event(event["event"], event["id"], event["data"])
            event = {}

    def upload(self, url: str, name: str, data: bytes) -> None:
        """Write a file to the address that the API gave for it."""
        try:
            answer = self._store.put(url, content=data)
        except httpx2.HTTPError as error:
            raise ServiceUnavailable(f"The object store does not answer ({error}); try again.") from error
        if answer.status_code >= 300:
            raise ServiceUnavailable(f"The object store refused {name} ({answer.status_code}); try again.")

    def _lines(self, path: str, **how: Any) -> Iterator[str | None]:
        """Yield None once the answer has begun, and then its lines."""
        with self._answering(), self._http.stream("GET", path, **how) as answer:
            if answer.status_code >= 400:
                answer.read()
                _check(answer)
            yield None
            yield from answer.iter_lines()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            raise ServiceUnavailable(
                f"The HTTP API at {self._http.base_url} does not answer ({error}); start it, or correct "
                "IMAGEMILL_API_URL."
            ) from error


def _check(answer: httpx2.Response) -> None:
    """Raise the error that an answer stands for."""
    if answer.status_code < 400:
        return
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    raise _error(problem if isinstance(problem, dict) else {}, int(answer.headers.get("Retry-After", "1") or 1))


def _error(problem: Mapping[str, Any], again: int) -> ImagemillError:
    said = str(problem.get("detail", "The HTTP API refused the request without a reason."))
    kind = _ERRORS.get(str(problem.get("code")))
    if kind is errors.Overloaded:
        return errors.Overloaded(said, retry_after=float(again))
    if kind is not None:
        return kind(said)
    return ServiceUnavailable(said) if int(problem.get("status", 500)) >= 500 else InvalidInput(said)
