"""How a parent and its confined child talk: JSON headers through pipes, raw bytes through shared memory; no pickle.

A header is 4 bytes of length and an object. The parent owns the memory, and it can be neither shrunk nor grown, so a
child cannot make the parent fault by truncating it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

Header = dict[str, Any]
_LENGTH = struct.Struct("<I")
_LONGEST = 2**20
_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4  # <linux/fcntl.h>: no more seals, no shrinking, no growing


class Closed(Exception):
    """The other side is gone, or wrote what is no header."""


def send(pipe: int, header: Header) -> None:
    """Write a header; raises Closed."""
    data = json.dumps(header).encode()
    view = memoryview(_LENGTH.pack(len(data)) + data)
    try:
        while view:
            view = view[os.write(pipe, view) :]
    except OSError as error:
        raise Closed(str(error)) from error


class Receiver:
    """Reads headers from a pipe. It keeps what is not whole yet, so half a header blocks nobody."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._read = b""

    def some(self) -> list[Header]:
        """Read once, and return the headers that are whole now; raises Closed."""
        try:
            data = os.read(self._pipe, 65536)
        except OSError as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed("the pipe ended")
        self._read += data
        found = []
        while len(self._read) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._read)
            if length > _LONGEST:
                raise Closed(f"a header of {length} bytes")
            end = _LENGTH.size + length
            if len(self._read) < end:
                break
            found.append(_parsed(self._read[_LENGTH.size : end]))
            self._read = self._read[end:]
        return found

    def __iter__(self) -> Iterator[Header]:
        """Yield headers until the pipe ends; raises Closed then."""
        while True:
            yield from self.some()


def _parsed(data: bytes) -> Header:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Closed("no JSON") from error
    if not isinstance(found, dict):
        raise Closed("no object")
    return found


class Memory:
    """A block of shared memory in equal slots; pages that nobody has written take no room."""

    def __init__(self, handle: int, slots: int, size: int) -> None:
        self.handle, self.slots, self.size = handle, slots, size
        self._map = mmap.mmap(handle, slots * size)

    @classmethod
    def create(cls, slots: int, size: int) -> Memory:
        """Make the block; the parent does."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        handle = os.memfd_create("imagemill", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(handle, slots * size)
            fcntl.fcntl(handle, _ADD_SEALS, _SEALS)
            return cls(handle, slots, size)
        except BaseException:
            os.close(handle)
            raise

    def put(self, slot: int, blobs: Sequence[bytes | memoryview]) -> list[int]:
        """Copy blobs into a slot, one after the other, and return their sizes. Raises ValueError if they do not fit."""
        sizes = [len(blob) for blob in blobs]
        if sum(sizes) > self.size:
            raise ValueError(f"{sum(sizes)} bytes do not fit into the {self.size} that are shared with a child")
        at = slot * self.size
        for blob in blobs:
            self._map[at : at + len(blob)] = blob
            at += len(blob)
        return sizes

    def get(self, slot: int, sizes: object) -> list[bytes]:
        """Return copies of the blobs of a slot; raises Closed for sizes that the slot cannot hold."""
        if not isinstance(sizes, list) or any(type(size) is not int or size < 0 for size in sizes):
            raise Closed("sizes that are none")
        if sum(sizes) > self.size:
            raise Closed("blobs that leave their slot")
        found, at = [], slot * self.size
        for size in sizes:
            found.append(self._map[at : at + size])
            at += size
        return found

    def close(self) -> None:
        self._map.close()
        os.close(self.handle)
