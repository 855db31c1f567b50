"""Receivers of webhooks for tests: they keep what they were sent, and answer, lie or stall as they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.sites import LOOPBACK, send, site

Behave = Callable[[BaseHTTPRequestHandler], None]


def well(request: BaseHTTPRequestHandler) -> None:
    """Answer 204."""
    send(request, 204)


@dataclass(frozen=True)
class Post:
    """One request that arrived whole."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """What the reference library reads of it; it raises if the signature is not by `secret`."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """Whoever listens; `behave` may be changed at any time."""

    behave: Behave = well
    posts: list[Post] = field(default_factory=list)
    port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        """Listen until the block ends, on the same port each time."""
        with site(self._take, LOOPBACK, self.port) as port:
            self.port = port
            yield self

    def url(self, path: str = "/hook") -> str:
        return f"http://{LOOPBACK}:{self.port}{path}"

    @property
    def ids(self) -> list[str]:
        with self._lock:
            return [post.id for post in self.posts]

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            self.posts.append(Post(request.path, headers, body))
        self.behave(request)
