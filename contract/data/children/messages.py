"""The messages between a worker and its decoders: a JSON head and raw bytes behind it, through a pair of pipes.

Nothing is unpickled, for a decoder that was taken over writes what it likes, or nothing at all. It knows neither images
nor processes.
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


class Messages:
    """Sends and receives through two pipes; a call that takes longer than `patience` seconds raises TimeoutError.

    Raises EOFError or OSError if the other side is gone, and ValueError if what it wrote is no message.
    """

    def __init__(self, incoming: int, outgoing: int, *, patience: float | None = None) -> None:
        self._incoming, self._outgoing, self.patience = incoming, outgoing, patience
        self._read = bytearray()
        if patience is not None:
            for pipe in (incoming, outgoing):
                os.set_blocking(pipe, False)
                with suppress(OSError):  # else a message takes a switch of processes for each 64 KiB of it
                    fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIECE)

    def send(self, head: Head, parts: Sequence[bytes | memoryview] = ()) -> None:
        """Write a message."""
        deadline = self._deadline()
        text = json.dumps(head).encode()
        left = [memoryview(_SIZES.pack(len(text), sum(map(len, parts))) + text), *(memoryview(part) for part in parts)]
        while left:
            try:
                written = os.writev(self._outgoing, left)
            except BlockingIOError:
                self._wait(self._outgoing, select.POLLOUT, deadline)
                continue
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]

    def receive(self, at_most: int) -> tuple[Head, bytearray]:
        """Read a message of at most so many bytes behind its head."""
        deadline = self._deadline()
        self._fill(_SIZES.size, deadline)
        head_size, size = _SIZES.unpack_from(self._read)
        if head_size > _HEAD_AT_MOST or size > at_most:
            raise ValueError(f"a message of {head_size} and {size} bytes")
        start = _SIZES.size + head_size
        self._fill(start + size, deadline)
        head = json.loads(self._read[_SIZES.size : start])
        if not isinstance(head, dict):
            raise ValueError("a message without a head")
        # One side writes, then waits: what was read is this message, unless the other side does not keep to that.
        data, self._read = self._read, self._read[start + size :]
        del data[start + size :], data[:start]
        return head, data

    def _fill(self, size: int, deadline: float | None) -> None:
        """Read until so many bytes are there."""
        while len(self._read) < size:
            try:
                piece = os.read(self._incoming, max(_PIECE, size - len(self._read)))
            except BlockingIOError:
                self._wait(self._incoming, select.POLLIN, deadline)
                continue
            if not piece:
                raise EOFError
            self._read += piece

    def _deadline(self) -> float | None:
        return None if self.patience is None else time.monotonic() + self.patience

    def _wait(self, pipe: int, event: int, deadline: float | None) -> None:
        assert deadline is not None, "a pipe that blocks"
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            raise TimeoutError("the other side does not answer")
