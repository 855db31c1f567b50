"""The HTTP API on a port of loopback, in a thread of the test, and tokens for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from contract.web.tokens import Tokens, describe, new_token
from producer.web.serve import listen, make_server, url_of
from tests.waiting import wait_until


@dataclass(frozen=True)
class Api:
    """A server that runs, and the store behind it."""

    url: str
    store: ObjectStore

    def token(
        self, *scopes: str, owner: str = "ann", person: str = "", rate: float = 0.0, lives: float | None = None
    ) -> str:
        """Return a new token."""
        text = new_token()
        Tokens(self.store).put(
            describe(text, owner=owner, person=person, scopes=scopes or ("jobs",), rate=rate, lives=lives)
        )
        return text

    def client(self, *scopes: str, owner: str = "ann") -> httpx2.Client:
        """Return an HTTP client with a new token."""
        headers = {"Authorization": f"Bearer {self.token(*scopes, owner=owner)}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30)

    def raw(self, *pieces: bytes, seconds: float = 10.0) -> bytes:
        """Send bytes as they are over a connection of their own; return all that comes until it is closed."""
        with socket.create_connection((httpx2.URL(self.url).host, httpx2.URL(self.url).port or 80), seconds) as wire:
            for piece in pieces:
                wire.sendall(piece)
            found = b""
            try:
                while some := wire.recv(2**16):
                    found += some
            except (TimeoutError, ConnectionResetError):
                pass
            return found


@contextmanager
def serving(settings: Settings, store: ObjectStore, **changes: object) -> Iterator[Api]:
    """Serve the API for `settings` until the block ends."""
    server = make_server(settings.model_copy(update=changes))
    with listen("127.0.0.1", 0) as bound:
        url = url_of(bound)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="web", daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started, 30, "the HTTP API to listen")
            yield Api(url, store)
        finally:
            server.should_exit = True
            thread.join(30)


def codes(answers: Sequence[httpx2.Response]) -> list[int]:
    return [answer.status_code for answer in answers]
