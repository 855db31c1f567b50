"""Web servers for tests: scripted ones that answer, drip, redirect or count, on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOOPBACK = "127.0.0.1"

Answer = Callable[[BaseHTTPRequestHandler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """Say nothing about clients that leave."""


@contextmanager
def site(answer: Answer, host: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """Serve GET and POST requests with `answer` until the block ends; yield the port, a free one unless told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with _Server((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()


def send(request: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """Answer a request; `Retry_After` becomes the header `Retry-After`."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def drip(request: BaseHTTPRequestHandler, gone: threading.Event, body: bytes = b"", every: float = 0.2) -> None:
    """Send a header, then a byte at a time until the client leaves or `gone` is set."""
    with suppress(OSError):
        request.send_response(200)
        request.send_header("Content-Length", str(10**6))
        request.end_headers()
        while not gone.wait(every):
            request.wfile.write(b"x")
    request.close_connection = True


class Canary:
    """Listens where nobody may connect, and counts who does."""

    def __init__(self) -> None:
        self.connections = 0
        self.ports: list[int] = []

    @contextmanager
    def listening(self, *hosts: str) -> Iterator[Canary]:
        """Listen on one port of every host that this machine has."""
        with ExitStack() as stack:
            port = 0
            for host in hosts or (LOOPBACK,):
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    listener.bind((host, port))
                except OSError:
                    continue  # a machine without IPv6
                port = listener.getsockname()[1]
                listener.listen(64)
                listener.settimeout(0.05)
                self.ports.append(port)
                ended = threading.Event()
                thread = threading.Thread(target=self._count, args=(listener, ended), daemon=True)
                thread.start()
                stack.callback(thread.join)
                stack.callback(ended.set)
            yield self

    @property
    def port(self) -> int:
        return self.ports[0]

    def _count(self, listener: socket.socket, ended: threading.Event) -> None:
        last = False
        while not last:
            last = ended.is_set()  # one more look at who came meanwhile
            with suppress(TimeoutError):
                connected, _ = listener.accept()
                self.connections += 1
                connected.close()
