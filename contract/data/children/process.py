"""Starts a child, talks to it by messages, and ends it.

It knows neither what confines the child nor what it computes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, BinaryIO, Protocol

from contract.data.children.messages import Head, Receiver, prepare, send

# The kernel ends a child with the thread that started it (PR_SET_PDEATHSIG), hence one thread that never ends.
_SPAWNER = ThreadPoolExecutor(1, "imagemill-spawner")


class Running(Protocol):
    """As much of `subprocess.Popen` as a Process takes."""

    @property
    def pid(self) -> int: ...

    @property
    def stdin(self) -> IO[bytes] | None: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


def start(
    command: Sequence[str],
    *,
    stdin: BinaryIO | int = subprocess.PIPE,
    stderr: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a Python program as a child whose output is a pipe.

    Its environment is `env` and where to import from; no credentials, no home.
    """
    own = {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **(env or {}),
    }
    return _SPAWNER.submit(
        subprocess.Popen,
        [sys.executable, *command],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=pass_fds,
        env=own,
        start_new_session=True,  # a Ctrl-C is for its parent, which ends it
    ).result()


def ending(status: int) -> str:
    """Return how a process ended, by its exit status or, negative, its signal: "status 3", "SIGKILL"."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


class Process:
    """A child that talks by messages; one thread at a time may send, and one receive."""

    def __init__(self, running: Running) -> None:
        self.running = running
        assert running.stdout is not None
        pipes = [pipe.fileno() for pipe in (running.stdout, running.stdin) if pipe is not None]
        for pipe in pipes:
            prepare(pipe)
        self._to, self._from = pipes[-1], Receiver(pipes[0])
        self.stopped = False
        """Whether it was ended from here."""

    @property
    def pid(self) -> int:
        return self.running.pid

    @property
    def alive(self) -> bool:
        return self.running.poll() is None

    def send(
        self, head: Head, parts: Sequence[bytes | bytearray | memoryview] = (), *, seconds: float | None = None
    ) -> None:
        """Write a message to it; raises what `messages.send` raises."""
        send(self._to, head, parts, seconds=seconds)

    def receive(self, at_most: int = 0, *, seconds: float | None = None) -> tuple[Head, bytearray]:
        """Read a message from it; raises what `Receiver.receive` raises."""
        return self._from.receive(at_most, seconds=seconds)

    def ended(self, seconds: float = 1.0) -> int:
        """End it unless it ends by itself within so many seconds; return its status, negative for a signal."""
        try:
            return self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stopped = True
            self.running.kill()
            return self.running.wait()

    def end(self, seconds: float = 1.0) -> int:
        """Close its pipes, which ends a child that is well, and do what `ended` does."""
        for pipe in (self.running.stdin, self.running.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        return self.ended(seconds)
