"""Runs the HTTP API on uvicorn: the socket, the limits of connections, TLS, and the end on a signal."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from pathlib import Path

import uvicorn

from contract.errors import InvalidSettings
from contract.settings import Settings
from producer.web.app import make_app
from producer.web.guard import HEAD_BYTES
from producer.web.protocol import Protocol

log = logging.getLogger(__name__)

_IDLE_SECONDS = 15
_GRACE_SECONDS = 10
_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises InvalidSettings if the address is taken or is none."""
    try:
        ((family, *_, address),) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[:1]
        # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer over a kept connection takes
        # 40 ms, since its body waits for the client to acknowledge its head.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        # From now on, so that whoever reads the address that is printed is not refused; uvicorn takes a while to start.
        made.listen(_BACKLOG)
    except OSError as error:
        raise InvalidSettings(
            f"The HTTP API cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host."
        ) from error
    return made


def url_of(bound: socket.socket, *, tls: bool = False) -> str:
    """Return the address of a server for a client on this machine."""
    host, port = bound.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def make_server(settings: Settings, certificate: Path | None = None, key: Path | None = None) -> uvicorn.Server:
    """Return a server that is not started; raises InvalidSettings for a certificate that cannot be used."""
    if certificate is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or str(error)
            raise InvalidSettings(f"The certificate {certificate} cannot be used ({why}); check both files.") from error
    config = uvicorn.Config(
        make_app(settings),
        # Needs h11. The guard answers HEAD as GET without a body, and uvicorn's other protocols break off, as the bytes
        # that Content-Length announces do not come.
        http=Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ssl_certfile=None if certificate is None else os.fspath(certificate),
        ssl_keyfile=None if key is None else os.fspath(key),
    )
    return uvicorn.Server(config)
