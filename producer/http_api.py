"""The HTTP API as a client sees it: requests, answers in JSON, streams, and our errors for what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError

from contract import errors
from contract.errors import ImagemillError, InvalidInput, ObjectChanged, ObjectNotFound, ServiceUnavailable, code_of
from contract.jobs.results import Row
from contract.web.client import retry_after

A = TypeVar("A")
T = TypeVar("T", bound=BaseModel)

_ERRORS = {
    code_of(kind): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ImagemillError) and not issubclass(kind, errors.ImageError)
}


_AGAIN_SECONDS = 1.0
"""When to ask again, where an answer does not say."""
_PAGE = 200
"""Records on a page."""
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
        self.url = url
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
        return self.parsed(TypeAdapter(Any), method, path, **how)

    def one(self, kind: type[T], method: str, path: str, **how: Any) -> T:
        """Return the record that an answer holds."""
        return self.parsed(TypeAdapter(kind), method, path, **how)

    def many(self, kind: type[T], method: str, path: str, **how: Any) -> list[T]:
        """Return the records that an answer holds."""
        return self.parsed(TypeAdapter(list[kind]), method, path, **how)  # type: ignore[valid-type]

    def pages(self, kind: type[T], path: str) -> list[T]:
        """Return the records of all pages of a list."""
        found: list[T] = []
        params: dict[str, Any] = {"limit": _PAGE}
        while True:
            answer = self.send("GET", path, params=params)
            found += self._read(TypeAdapter(list[kind]), answer)  # type: ignore[valid-type]
            # Its cursor alone: an address may lead elsewhere, and the token goes along.
            cursor = httpx2.URL(answer.links.get("next", {}).get("url", "")).params.get("cursor")
            if not cursor:
                return found
            params["cursor"] = cursor

    def parsed(self, kind: TypeAdapter[A], method: str, path: str, **how: Any) -> A:
        """Return what an answer's JSON stands for."""
        return self._read(kind, self.send(method, path, **how))

    def _read(self, kind: TypeAdapter[A], answer: httpx2.Response) -> A:
        try:
            return kind.validate_json(answer.content)
        except ValidationError as error:
            raise self._stranger() from error

    def rows(self, path: str, **params: str) -> Iterator[Row]:
        """Yield the objects of JSON lines as they come."""
        return self.objects("GET", path, params=params)

    def objects(self, method: str, path: str, **how: Any) -> Iterator[dict[str, Any]]:
        """Yield the objects of JSON lines as they come, also where the server may take long for each."""
        for line in self._lines(method, path, **how):
            if line:
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise self._stranger() from error

    def table_rows(self, path: str, **params: str) -> Iterator[Row]:
        """Yield the rows of an Arrow stream as they come, with the types that they have in the bucket."""
        import pyarrow as pa  # heavy, and for rows alone

        how = {"params": params, "headers": {"Accept": "application/vnd.apache.arrow.stream"}}
        with self._stream("GET", path, how) as answer:
            file = pa.PythonFile(io.BufferedReader(_Pieces(answer.iter_bytes())), mode="r")
            try:
                with pa.ipc.open_stream(file) as reader:
                    for batch in reader:
                        yield from batch.to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise ServiceUnavailable(f"The answer of the HTTP API broke off ({error}); ask again.") from error

    def events(self, path: str, last: str) -> Iterator[Event]:
        """Yield `OPEN` and then the events behind the one whose id is `last`, until the stream ends."""
        event: dict[str, str] = {}
        for line in self._lines("GET", path, headers={"Last-Event-ID": last}):
            if line is None:
                yield Event(OPEN, "", "")
                continue
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
                continue
            if event.get("event") == "error":
                raise _error(json.loads(event["data"]), 500)
            if "data" in event:
                yield Event(event["event"], event["id"], event["data"])
            event = {}

    def upload(self, url: str, name: str, data: bytes | BinaryIO) -> None:
        """Write a file to the address that the API gave for it."""
        try:
            answer = self._store.put(url, content=data)
        except httpx2.HTTPError as error:
            raise ServiceUnavailable(f"The object store does not answer ({error}); try again.") from error
        if answer.status_code >= 300:
            raise ServiceUnavailable(f"The object store refused {name} ({answer.status_code}); try again.")

    def read(self, url: str, name: str, begin: int, end: int | None, etag: str = "") -> tuple[bytes, int]:
        """Return bytes `begin` until before `end` of an object, and its size, from an address that the API gave for it.

        Raises ObjectNotFound, also for a range that begins behind its end, and ObjectChanged for another `etag`.
        """
        headers = {"Range": f"bytes={begin}-{'' if end is None else end - 1}"}
        try:
            answer = self._store.get(url, headers=headers)
        except httpx2.HTTPError as error:
            raise ServiceUnavailable(f"The object store does not answer ({error}); try again.") from error
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status_code == 416 and whole == "0":
            return b"", 0  # no range of an empty object can be had
        if answer.status_code in (404, 416):
            raise ObjectNotFound(f"There is no object {name}, or it has become shorter.")
        if answer.status_code >= 300:
            raise ServiceUnavailable(f"The object store refused {name} ({answer.status_code}); try again.")
        if etag and answer.headers.get("ETag", "").strip('"') != etag:
            raise ObjectChanged(f"{name} was overwritten.")
        data = answer.content
        if answer.status_code == 200:  # the store knows no ranges, or the object is empty
            return data[begin:end], len(data)
        return data, int(whole) if whole.isdigit() else begin + len(data)

    def _stranger(self) -> ServiceUnavailable:
        """Return the error for a response that is not from this API, such as a proxy's page."""
        return ServiceUnavailable(
            f"{self.url} does not answer as the HTTP API of this version does; correct IMAGEMILL_API_URL, or upgrade "
            "the older of the two."
        )

    def _lines(self, method: str, path: str, **how: Any) -> Iterator[str | None]:
        """Yield None once the answer has begun, and then its lines."""
        with self._stream(method, path, how) as answer:
            yield None
            yield from answer.iter_lines()

    @contextmanager
    def _stream(self, method: str, path: str, how: Mapping[str, Any]) -> Iterator[httpx2.Response]:
        with self._answering(), self._http.stream(method, path, **how) as answer:
            if answer.status_code >= 400:
                answer.read()
                _check(answer)
            yield answer

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            raise ServiceUnavailable(
                f"The HTTP API at {self._http.base_url} does not answer ({error}); start it, or correct "
                "IMAGEMILL_API_URL."
            ) from error


class _Pieces(io.RawIOBase):
    """The bytes of an answer as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _check(answer: httpx2.Response) -> None:
    """Raise the error that an answer stands for."""
    if answer.status_code < 400:
        return
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    asked = retry_after(answer.headers.get("Retry-After"))  # a proxy may write a date
    again = _AGAIN_SECONDS if asked is None else asked
    raise _error(problem if isinstance(problem, dict) else {}, answer.status_code, again)


def _error(problem: Mapping[str, Any], status: int, again: float = _AGAIN_SECONDS) -> ImagemillError:
    said = str(problem.get("detail", f"The HTTP API refused the request without a reason ({status})."))
    kind = _ERRORS.get(str(problem.get("code")))
    if kind is errors.Overloaded:
        return errors.Overloaded(said, retry_after=again)
    if kind is not None:
        return kind(said)
    return ServiceUnavailable(said) if status >= 500 else InvalidInput(said)
