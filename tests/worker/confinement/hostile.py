"""A child that does what it is asked to, for tests of what it can."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from contract.data.children.messages import Head
from worker.confinement.serve import serve

held: list[bytearray] = []


def allocate() -> str:
    while True:
        held.append(bytearray(2**24))


def overflow(depth: int = 0) -> str:
    ctypes.string_at(0)
    return ""


def burn() -> str:
    while True:
        pass


def kill() -> str:
    os.kill(os.getppid(), 0)
    return ""


def sleep() -> str:
    time.sleep(600)
    return ""


def garbage() -> str:
    """Write into every pipe, and answer what was asked only if none was that of the answers."""
    for n in range(3, 16):
        with suppress(OSError):
            os.write(n, b"\xff" * 64)
    return sleep()


ACTIONS: dict[str, Callable[..., str]] = {
    "environment": lambda: " ".join(sorted(os.environ)),
    "files": lambda: " ".join(
        os.readlink(f"/proc/self/fd/{n}") for n in range(64) if os.path.lexists(f"/proc/self/fd/{n}")
    ),
    "socket": lambda: repr(socket.socket()),
    "read": lambda path: Path(path).read_text(),
    "write": lambda path: str(Path(path).write_text("x")),
    "fork": lambda: str(os.fork()),
    "execute": lambda: str(os.execv(sys.executable, [sys.executable])),
    "kill": kill,
    "allocate": allocate,
    "crash": overflow,
    "hang": burn,
    "sleep": sleep,
    "echo": lambda: "",
    "garbage": garbage,
}


def handle(request: Head, blobs: list[bytes]) -> tuple[Head, Sequence[bytes]]:
    return {"said": ACTIONS[request["do"]](*request.get("arguments", []))}, blobs


if __name__ == "__main__":
    serve(lambda greeting: ({"greeting": greeting.get("name", "")}, handle))
