"""A proxy before an S3 server, which answers for it where a test says so."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from deploy.local.ports import LOOPBACK

Refusal = tuple[int, str]
"""A status, and the code of an S3 error, or an empty string for an answer without one."""


@dataclass
class Proxy:
    """`refuses(method, path)` may be set at any time; None lets a request through.

    So may `cuts`, which says whether the connection ends in the middle of the answer's body, and `drops`, the names of
    the headers, in lower case, that the server does not see.
    """

    address: str
    upstream: str
    """The server; a test may say later where it is."""
    refuses: Callable[[str, str], Refusal | None] = lambda method, path: None
    cuts: Callable[[str, str], bool] = lambda method, path: False
    drops: frozenset[str] = frozenset()
    refused: list[str] = field(default_factory=list)
    """The paths of the requests that were refused."""


@contextmanager
def before(upstream: str) -> Iterator[Proxy]:
    """A proxy before the server at `host:port`. What is signed, the name of the host, is passed on as it came."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            refusal = proxy.refuses(self.command, self.path)
            if refusal is not None:
                proxy.refused.append(self.path)
                self._refuse(*refusal)
                return
            connection = http.client.HTTPConnection(proxy.upstream, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in proxy.drops:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            # A HEAD reports the length of the object and has no body.
            length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            if len(data) > 1 and proxy.cuts(self.command, self.path):
                data, self.close_connection = data[: len(data) // 2], True
            self.wfile.write(data)
            connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815, the names that the base class calls

        def _refuse(self, status: int, code: str) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/xml" if code else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that are killed hang up; they are what the test is about."""

    with Server((LOOPBACK, 0), Handler) as server:
        proxy = Proxy(f"{LOOPBACK}:{server.server_address[1]}", upstream)
        thread = threading.Thread(target=server.serve_forever, name="proxy", daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
