"""What every request passes before a route sees it, and every answer after: host, framing, token, rate, sizes, times.

It runs before anything of a body is read, so a stranger costs a header and no more.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
from starlette.responses import Response

from contract.errors import ImagemillError
from contract.telemetry import logs, traces
from producer.web.access import Access
from producer.web.console import door, rendering
from producer.web.observe import refusals
from producer.web.online.held import Held, Holding
from producer.web.problems import Problem, internal, of_error

log = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/livez", "/readyz", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready"})
"""Pages that ask for no token. What they say is the same for everybody."""
PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Pages for machines that know the server by a number, such as the kubelet."""
HEAD_BYTES = 16 * 2**10
BODY_BYTES = 2**20
BODY_SECONDS = 30.0
"""From the head of a request to the end of its body, for a body of `BODY_BYTES`; a larger one gets more."""
SEND_SECONDS = 60.0
"""A client that takes nothing of its answer for so long is sent away: what it does not read lies in memory."""
_BYTES_A_SECOND = 256 * 2**10
MOST_REQUESTS = 256
"""Requests under way at once, event streams among them."""
_LOOKUPS = 40
"""Tokens that are looked up at once: in threads of their own, since routes may wait for Redis in all the others."""

_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""Headers of each answer, unless a route sets them itself."""


class Guard:
    """Middleware around the whole application.

    `hosts` are the names that `Host` may have. `large` gives the bytes that a body may have at a path, where that is
    more than `BODY_BYTES`.
    """

    def __init__(
        self, app: App, *, access: Access, hosts: frozenset[str], large: Callable[[str], int] = lambda path: 0
    ) -> None:
        self._app, self._access, self._hosts, self._large = app, access, hosts, large
        self._under_way, self._held = 0, Held()
        self._checkers = anyio.CapacityLimiter(_LOOKUPS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope["imagemill.request_id"] = request_id
        answer = _Answer(send, request_id, head_only=scope["method"] == "HEAD")
        if scope["method"] == "HEAD":  # for every route that answers GET (RFC 9110, 9.3.2)
            scope["method"] = "GET"
        self._under_way += 1
        try:
            with logs.scope(request=request_id):
                await self._answered(scope, receive, answer)
        finally:
            self._under_way -= 1

    async def _answered(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        request_id = scope["imagemill.request_id"]
        try:
            await self._checked(scope, receive, answer)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if answer.begun:
                # The client sees a connection that broke off, which is what happened.
                log.warning("Request %s broke off: %s", request_id, error)
                raise
            await _refusal(error, scope, request_id)(scope, receive, answer)

    async def _checked(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = _headers(scope)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES:
            raise Problem(431, "The head of the request is too large; send fewer or shorter headers.")
        path = scope["path"]
        # Whoever restarts a server that does not answer its probes would end the requests under way.
        if self._under_way > MOST_REQUESTS and path not in PROBES:
            raise Problem(503, "This server has too many requests under way; try again.", headers={"Retry-After": "1"})
        if path not in PROBES:
            self._check_host(headers)
        _check_framing(headers)
        if door.covers(path):
            door.check_origin(scope["method"], headers)
            if not door.is_open(path):
                await self._check_token(scope, [f"Bearer {door.token_of(headers, scope['scheme'])}"])
        elif path not in OPEN:
            await self._check_token(scope, [value.decode("latin-1") for value in headers.get(b"authorization", [])])
        most = self._large(path) or BODY_BYTES
        length = (headers.get(b"content-length") or [b"0"])[0]
        if int(length) > most:
            raise Problem(413, f"The body has more than {most:,} bytes; send less.")
        holding = scope["imagemill.held"] = Holding(self._held)
        try:
            await self._app(scope, _Body(receive, most, holding), answer)
        finally:
            holding.close()

    def _check_host(self, headers: Mapping[bytes, list[bytes]]) -> None:
        """Refuse a page of somebody else's name, which a browser was led here by (DNS rebinding)."""
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or host_of(hosts[0].decode("latin-1")) not in self._hosts:
            raise Problem(
                421, "This server is not known under the name in `Host`; IMAGEMILL_WEB_HOSTS names those it has."
            )

    async def _check_token(self, scope: Scope, given: list[str]) -> None:
        token = self._access.known(given)
        if token is None:
            token = await anyio.to_thread.run_sync(self._access.check, given, limiter=self._checkers)
        self._access.admit(token)
        scope["imagemill.token"] = token


def host_of(text: str) -> str:
    """Return the host in `localhost:8080`, `127.0.0.1` or `[::1]:8080`, in lower case; empty for what has none."""
    name, colon, port = text.strip().lower().rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text.strip().lower(), "0"
    return name.strip("[]").rstrip(".") if port.isdigit() else ""


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _check_framing(headers: Mapping[bytes, list[bytes]]) -> None:
    """Refuse a request whose end a proxy could see elsewhere, and a body that would have to be unpacked."""
    lengths, encodings = headers.get(b"content-length", []), headers.get(b"transfer-encoding", [])
    if (lengths and encodings) or len(lengths) > 1 or len(encodings) > 1:
        raise Problem(
            400, "The length of the body is given twice; send one Content-Length or one Transfer-Encoding.",
            headers={"Connection": "close"},
        )  # fmt: skip
    if lengths and (not lengths[0].isdigit() or len(lengths[0]) > 15):
        raise Problem(400, "The Content-Length is no number.", headers={"Connection": "close"})
    packed = [value for value in headers.get(b"content-encoding", []) if value.strip().lower() != b"identity"]
    if packed:
        raise Problem(415, "The body is compressed; send it as it is, without Content-Encoding.")


class _Body:
    """Hands the body on, within a number of bytes and a time that starts with the request; what arrives is held."""

    def __init__(self, receive: Receive, most: int, holding: Holding) -> None:
        self._receive, self._most, self._holding = receive, most, holding
        self._bytes, self._done = 0, False
        self._ends = asyncio.get_running_loop().time() + max(BODY_SECONDS, most / _BYTES_A_SECOND)

    async def __call__(self) -> Message:
        if self._done:
            return await self._receive()  # waits for the client to go away
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "The body did not arrive in time.", headers={"Connection": "close"}) from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._done = not message.get("more_body", False)
            if self._bytes > self._most:
                raise Problem(
                    413, f"The body has more than {self._most:,} bytes; send less.", headers={"Connection": "close"}
                )
            self._holding.take(len(message.get("body", b"")))
        else:
            self._done = True
        return message


class _Answer:
    """Sends an answer, with the headers that each has.

    With `head_only` it ends after the headers. The application then sees a disconnected client, so streams stop.
    """

    def __init__(self, send: Send, request_id: str, *, head_only: bool = False) -> None:
        self._send, self._id, self._head_only = send, request_id, head_only
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            given = [(name.lower(), value) for name, value in message.get("headers", [])]
            names = {name for name, _ in given}
            more = [(name, value) for name, value in _ALWAYS.items() if name not in names]
            message = {**message, "headers": [*given, *more, (b"x-request-id", self._id.encode())]}
            await self._sent(message)
            if self._head_only:
                await self._sent({"type": "http.response.body", "body": b"", "more_body": False})
        elif not self._head_only:
            await self._sent(message)

    async def _sent(self, message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise ConnectionError(f"its client took nothing of the answer for {SEND_SECONDS:g} s") from None


def _refusal(error: Exception, scope: Scope, request_id: str) -> Response:
    problem = _problem(error, request_id)
    refusals.note(problem, request_id)
    if not door.covers(scope["path"]):
        return problem.response(request_id, protocol=scope["path"].startswith("/v2"))
    part = b"hx-request" in _headers(scope)
    if problem.status_code == 401:
        return door.to_sign_in(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), part=part)
    return rendering.refusal(problem, request_id, scope.get("imagemill.token"), path=scope["path"], part=part)


def _problem(error: Exception, request_id: str) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, ImagemillError):
        return of_error(error)
    traces.fail(error)
    log.error("Request %s failed", request_id, exc_info=error)
    return internal()
