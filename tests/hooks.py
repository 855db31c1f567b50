"""Receivers of webhooks for tests: they keep what they were sent, and answer, lie or stall as they are told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from standardwebhooks.webhooks import Webhook

from contract.backend.objects import ObjectStore
from contract.keys.webhooks import webhook_message, webhook_outcome
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints
from contract.web.webhooks.outbox import Attempt, Event, Outbox, Outcome
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


def told_webhook(store: ObjectStore, owner: str, path: str, states: Sequence[str]) -> str:
    """Return the id of a webhook on a port where nobody listens, with a message in each of these states."""
    policy = AddressPolicy("127.0.0.1", "1-65535")
    id, outbox = Endpoints(store).register(f"http://127.0.0.1:9{path}", owner, policy).id, Outbox(store)
    for n, state in enumerate(states):
        at_ms = int((time.time() - n * 3600) * 1000)
        event = Event("job.succeeded", f"job/job-{n}/0", at_ms, {"job": f"job-{n}"})
        if state == "waiting":
            outbox.add(event, id, time.time())
            continue
        failed = {"status": 500, "error": "it answered 500"} if state == "failed" else {"status": 204}
        last = Attempt.model_validate({"at": "2026-11-26T00:00:00Z", "seconds": 0.2, **failed})
        told = {"state": state, "attempts": 10, "at": last.at, "last": last}
        store.put(webhook_message(id, event.name(id)), event.message(id).to_json())
        store.put(webhook_outcome(id, event.name(id)), Outcome.model_validate(told).to_json())
    return id
