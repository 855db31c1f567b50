"""The HTTP server of a process: it answers GET from a table of pages, for probes and Prometheus, and takes what is
posted to the few paths that are made for it.

It is small and suspicious, since whoever can reach the port can send anything. A connection has one request and a few
seconds in all, whatever it sends; when too many are open, the oldest one ends, so that slow clients cannot keep
probes out.
"""

from __future__ import annotations

import logging
import re
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from errno import EADDRINUSE
from http.server import BaseHTTPRequestHandler
from typing import Any

from contract.errors import InvalidSettings
from contract.telemetry.routes import Answer, Inbox, Routes, as_json, text

log = logging.getLogger(__name__)

_MOST = 32
"""Open connections."""
_SECONDS = 10.0
"""From accepting a connection to its end."""
_LOOK_SECONDS = 0.5
_DROPPED = 16 * 2**20
"""Bytes of a body that is refused that are read and dropped."""


def parse_ports(given: str) -> range:
    """Return the ports of `9464` or `9464-9495`, none for an empty text or `0`; raises InvalidSettings."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", given.strip() or "0")
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)
    if (first, last) == (0, 0):
        return range(0)
    if not 0 < first <= last < 2**16:
        raise InvalidSettings(
            f"IMAGEMILL_METRICS_PORT={given!r} is no port; write one, as 9464, or a range, as 9464-9495."
        )
    return range(first, last + 1)


class Server:
    """Serves a table of pages on the first free port; `open` binds it, and `close` lets it go."""

    def __init__(self, routes: Routes, host: str, ports: Sequence[int]) -> None:
        self._routes, self._host, self._ports = routes, host, ports
        self._server: _Server | None = None

    def open(self) -> str:
        """Listen; return the address, `127.0.0.1:9464`. Raises InvalidSettings if no port is free."""
        for port in self._ports:
            try:
                self._server = _Server((self._host, port), self._routes)
                break
            except OSError as error:
                if error.errno != EADDRINUSE:
                    raise InvalidSettings(
                        f"Port {port} of IMAGEMILL_METRICS_HOST={self._host!r} cannot be opened ({error.strerror}); "
                        "correct the host, or unset IMAGEMILL_METRICS_PORT."
                    ) from error
        else:
            raise InvalidSettings(self._taken())
        thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": _LOOK_SECONDS}, name="metrics", daemon=True
        )
        thread.start()
        return self.address

    @property
    def address(self) -> str:
        """The address that it listens on, `host:port`; empty before `open`."""
        if self._server is None:
            return ""
        host, port = self._server.server_address[:2]
        shown = str(host)
        return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"

    def close(self) -> None:
        """Stop listening, and end open connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _taken(self) -> str:
        first, last = self._ports[0], self._ports[-1]
        if first == last:
            return (
                f"Port {first} of {self._host} is taken, perhaps by another worker of this machine; give this process "
                f"another IMAGEMILL_METRICS_PORT, or all of them a range, as {first}-{min(first + 31, 65535)}."
            )
        return f"All ports of {self._host} from {first} to {last} are taken; widen the range of IMAGEMILL_METRICS_PORT."


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        self.routes = routes
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._since[request] = time.monotonic()
            oldest = next(iter(self._since)) if len(self._since) > _MOST else None
        if oldest is not None:
            self._end(oldest)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End connections whose time is over; `serve_forever` calls this twice a second."""
        late = time.monotonic() - _SECONDS
        with self._lock:
            slow = [request for request, since in self._since.items() if since < late]
        for request in slow:
            self._end(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            left = list(self._since)
        for request in left:
            self._end(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away, or was sent away."""
        log.debug("A request for metrics broke off", exc_info=True)

    def _end(self, request: socket.socket) -> None:
        """Wake the thread that reads from a connection; it closes it."""
        with self._lock:
            self._since.pop(request, None)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request. Versions of Python and of the server are nobody's business."""

    server: _Server
    timeout = _SECONDS
    server_version, sys_version = "imagemill", ""

    def do_GET(self) -> None:
        try:
            answer = self.server.routes.answer(self.path)
        except Exception:
            log.exception("A page for machines failed")
            answer = text(500, "This page failed; see the log of the process.")
        self._send(answer)

    def do_POST(self) -> None:
        if (inbox := self.server.routes.inbox(self.path)) is None:
            if self.server.routes.starting:
                self._send(text(503, "This process is starting; try again in a few seconds."))
            else:
                self._refuse_method()
            return
        try:
            answer = inbox.refuse(self.headers.get("Authorization", "")) or self._taken(inbox)
        except OSError:
            raise
        except Exception:
            log.exception("What was posted could not be taken")
            answer = as_json({"error": "This request failed; see the log of the process."}, 500)
        if answer is not None:
            self._send(answer)
            self._let_them_read()

    def _taken(self, inbox: Inbox) -> Answer | None:
        """Read the body and hand it over; return None to a client that went away."""
        length = self.headers.get("Content-Length", "")
        if not length or self.headers.get("Transfer-Encoding") is not None:
            return as_json({"error": "Send the body in one piece, with a Content-Length."}, 411)
        if not re.fullmatch(r"\d{1,15}", length, re.ASCII):
            return as_json({"error": "The Content-Length is no number."}, 400)
        if int(length) > inbox.limit:
            return as_json({"error": f"The body has more than {inbox.limit:,} bytes; send less at a time."}, 413)
        body = self.rfile.read(int(length))
        return inbox.take(body) if len(body) == int(length) else None

    def _let_them_read(self) -> None:
        """Read and drop what is still sent: closing at once would take the answer from a client that is sending."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            for _ in range(_DROPPED // 2**16):
                if not self.rfile.read1(2**16):
                    return

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request: in one line, without repeating what it said."""
        if code == 501:  # a method that there is no `do_` for
            self._refuse_method()
        else:
            self._send(text(code, "This is no request that is understood here."))
        self.close_connection = True

    def _refuse_method(self) -> None:
        posts = self.server.routes.inbox(self.path) is not None
        self._send(text(405, f"Only {'POST' if posts else 'GET'} is answered."), allow="POST" if posts else "GET")

    def _send(self, answer: Answer, *, allow: str = "") -> None:
        if self.request_version == "HTTP/0.9":
            return
        self.send_response(answer.status)
        if answer.status != 204:
            self.send_header("Content-Type", answer.type)
            self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        if allow:
            self.send_header("Allow", allow)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no request: Prometheus and the kubelet ask every few seconds."""
