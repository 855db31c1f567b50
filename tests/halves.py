"""Half a request: its connection ends between the head and the body, as that of a process that is killed does."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def half_written(key: str) -> Iterator[list[str]]:
    """Send the store only the head of each PUT of the object `key`; yield a list that gains one entry per PUT."""
    cut: list[str] = []
    heads: dict[int, str] = {}
    send = http.client.HTTPConnection.send

    def cutting(connection: http.client.HTTPConnection, data: bytes) -> None:
        if id(connection) in heads:
            cut.append(heads.pop(id(connection)))
            connection.sock.shutdown(socket.SHUT_WR)
            return
        first = bytes(data).partition(b"\r\n")[0].decode(errors="replace")
        if first.startswith("PUT ") and first[4:].partition("?")[0].partition(" ")[0].endswith(f"/{key}"):
            heads[id(connection)] = first
        send(connection, data)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(http.client.HTTPConnection, "send", cutting)
        yield cut
