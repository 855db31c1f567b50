"""Times and counts every request: middleware around the whole application, the guard included.

A label is the template of a route or one of a few words, and never what a client sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

from starlette.requests import ClientDisconnect

from contract import instruments
from contract.telemetry import traces
from producer.web.guard import PROBES
from producer.web.v1.results import ARROW, JSON_LINES

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_EVENTS, _ROWS = instruments.STREAM.values
_STREAMS = {"text/event-stream": _EVENTS, JSON_LINES: _ROWS, ARROW: _ROWS}
"""What is sent in pieces, by its media type."""
_LEFT = (OSError, ClientDisconnect, asyncio.CancelledError)
"""What ends an answer without a fault of the server: its client went away, or the server itself ends."""


class Traffic:
    """What is under way in this process. Changed by the event loop alone, and read by any thread."""

    def __init__(self) -> None:
        self.active = 0
        self.streams: Counter[str] = Counter()

    def show(self) -> None:
        """Set the gauges of what is under way."""
        instruments.HTTP_ACTIVE_REQUESTS.set(self.active)
        for stream in instruments.STREAM.values:
            instruments.HTTP_STREAMS.set(self.streams[stream], stream)


class Measured:
    """The application, with each of its requests measured."""

    def __init__(self, app: App, traffic: Traffic) -> None:
        self._app, self._traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._traffic, scope, receive, send)
        self._traffic.active += 1
        with _span(scope) as answered:
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except BaseException as error:
                exchange.broke_off(error)
                raise
            finally:
                exchange.end()
                self._traffic.active -= 1
                answered(route_of(scope), exchange.status, str(scope.get("imagemill.request_id", "")))


def _span(scope: Scope) -> AbstractContextManager[Callable[[str, int, str], None]]:
    """Return the span of a request; probes, which ask every few seconds, have none."""
    if scope["path"] in PROBES:
        return nullcontext(lambda route, status, request: None)
    method = scope["method"]
    return traces.request(method if method in instruments.METHOD.values else "")


def route_of(scope: Scope) -> str:
    """Return the template of the path of a request that came to a route; empty where none has its path and method."""
    route: Any = scope.get("route")
    return str(route.path) if scope["method"] in (getattr(route, "methods", None) or ()) else ""


class _Exchange:
    """One request and its answer."""

    def __init__(self, traffic: Traffic, scope: Scope, receive: Receive, send: Send) -> None:
        self._traffic, self._scope, self._receive, self._send = traffic, scope, receive, send
        self._began = time.perf_counter()
        self.status, self._class, self._stream = 0, "none", ""
        self._left = self._observed = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._left = True
        elif body := message.get("body"):
            instruments.HTTP_REQUEST_BYTES.add(len(body), route_of(self._scope))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._left:
            self.status, self._class = message["status"], f"{message['status'] // 100}xx"
            kind = next((value for name, value in message.get("headers", ()) if name.lower() == b"content-type"), b"")
            self._stream = _STREAMS.get(kind.decode("latin-1").partition(";")[0], "")
            if self._stream:
                self._traffic.streams[self._stream] += 1
        await self._send(message)
        if body := message.get("body"):
            instruments.HTTP_RESPONSE_BYTES.add(len(body), route_of(self._scope))
        if self._stream == _EVENTS:
            self._observe()  # it lasts as long as the job that it tells of

    def broke_off(self, error: BaseException) -> None:
        """Note that the application raised, and so ended the connection."""
        if not self._left and not isinstance(error, _LEFT):
            self._class = "5xx"
            traces.fail(error)

    def end(self) -> None:
        if self._stream:
            self._traffic.streams[self._stream] -= 1
        self._observe()

    def _observe(self) -> None:
        if not self._observed:
            self._observed = True
            seconds = time.perf_counter() - self._began
            instruments.HTTP_REQUEST_SECONDS.observe(seconds, self._scope["method"], route_of(self._scope), self._class)
