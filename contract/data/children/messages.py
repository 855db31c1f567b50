"""The messages between a process and its child: a JSON head and raw bytes behind it, through pipes.

Nothing is unpickled, for a child that was taken over writes what it likes, or nothing at all. It knows no processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_SIZES = struct.Struct("<IQ")
_HEAD_AT_MOST = 2**24
_PIECE = 2**20
_F_SETPIPE_SZ = 1031  # <linux/fcntl.h>

Head = dict[str, Any]


class Closed(Exception):
    """The other side is gone, or wrote what is no message."""


def prepare(pipe: int) -> None:
    """Make a pipe one that deadlines hold for; without, `send` and `Receiver` wait as long as it takes."""
    os.set_blocking(pipe, False)
    with suppress(OSError):  # else a message takes a switch of processes for each 64 KiB of it
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIECE)


def take_output() -> int:
    """Return standard output for messages; what libraries print goes to standard error from now on."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return pipe


def send(
    pipe: int, head: Head, parts: Sequence[bytes | bytearray | memoryview] = (), *, seconds: float | None = None
) -> None:
    """Write a message; raises Closed, or TimeoutError if that takes longer than so many seconds."""
    deadline = _deadline(seconds)
    text = json.dumps(head).encode()
    left = [memoryview(_SIZES.pack(len(text), sum(map(len, parts))) + text), *(memoryview(part) for part in parts)]
    while left:
        try:
            written = os.writev(pipe, left)
        except BlockingIOError:
            _wait(pipe, select.POLLOUT, deadline)
            continue
        except OSError as error:
            raise Closed(str(error)) from error
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


class Receiver:
    """Reads messages from a pipe; a part of one that has come when the time is over is kept for the next call."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._read = bytearray()

    def receive(self, at_most: int = 0, *, seconds: float | None = None) -> tuple[Head, bytearray]:
        """Return the next message's head and the bytes behind it, `at_most` so many.

        Raises Closed, or TimeoutError if it is not there within so many seconds.
        """
        deadline = _deadline(seconds)
        self._fill(_SIZES.size, deadline)
        head_size, size = _SIZES.unpack_from(self._read)
        if head_size > _HEAD_AT_MOST or size > at_most:
            raise Closed(f"a message of {head_size} and {size} bytes")
        start = _SIZES.size + head_size
        self._fill(start + size, deadline)
        try:
            head = json.loads(self._read[_SIZES.size : start])
        except (ValueError, RecursionError) as error:
            raise Closed("a head that is no JSON") from error
        if not isinstance(head, dict):
            raise Closed("a head that is no object")
        # Mostly nothing is behind it: each side writes, then waits.
        data, self._read = self._read, self._read[start + size :]
        del data[start + size :], data[:start]
        return head, data

    def _fill(self, size: int, deadline: float | None) -> None:
        """Read until so many bytes are there."""
        while len(self._read) < size:
            try:
                piece = os.read(self._pipe, _PIECE)
            except BlockingIOError:
                _wait(self._pipe, select.POLLIN, deadline)
                continue
            except OSError as error:
                raise Closed(str(error)) from error
            if not piece:
                raise Closed("the pipe ended")
            self._read += piece


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _wait(pipe: int, event: int, deadline: float | None) -> None:
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(None if deadline is None else max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError("the other side does not answer")
