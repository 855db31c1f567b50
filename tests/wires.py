"""TCP proxies: one records what passes, one ends TLS before a server that speaks none; each can swallow everything."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from deploy.local.ports import LOOPBACK


@dataclass
class Wire:
    """What clients see of a server, and what passed between them."""

    port: int
    seen: bytearray = field(default_factory=bytearray)
    """All bytes of both directions, as they were on the wire."""
    connections: int = 0
    flows: threading.Event = field(default_factory=threading.Event)
    """While it is cleared nothing passes, and no connection ends."""
    ends: set[socket.socket] = field(default_factory=set)
    """Both ends of the connections so far."""

    def __post_init__(self) -> None:
        self.flows.set()

    def cut(self) -> None:
        """End all connections; new ones pass."""
        for end in list(self.ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tap(upstream: int, host: str = LOOPBACK) -> Iterator[Wire]:
    """Record what passes to and from a port on loopback, between it and a port of `host`."""
    with _serve(upstream, None, host) as wire:
        yield wire


@contextmanager
def tls_before(upstream: int, context: ssl.SSLContext) -> Iterator[Wire]:
    """Serve TLS before a port on loopback, and record the ciphertext."""
    with _serve(upstream, context) as plain, tap(plain.port) as wire:
        yield wire


@contextmanager
def _serve(upstream: int, context: ssl.SSLContext | None, host: str = LOOPBACK) -> Iterator[Wire]:
    listener = socket.create_server((host, 0))
    wire = Wire(listener.getsockname()[1])

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                wire.flows.wait()
                wire.seen += data
                sink.sendall(data)
        wire.flows.wait()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(raw: socket.socket) -> None:
        # A client that does not like our certificate hangs up, and the server behind may be away.
        with (
            suppress(OSError),
            raw,
            context.wrap_socket(raw, server_side=True) if context else raw as client,
            socket.create_connection((LOOPBACK, upstream)) as server,
        ):
            wire.ends.update((client, server))
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                wire.connections += 1
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, name="wire", daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        wire.flows.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        wire.cut()
