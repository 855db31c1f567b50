"""Memory that a parent shares with a confined child, for blobs too large for pipes.

The parent owns the memory, and it can be neither shrunk nor grown, so a child cannot make the parent fault by
truncating it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Sequence

from contract.data.children.messages import Closed

_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4  # <linux/fcntl.h>: no more seals, no shrinking, no growing


class Memory:
    """A block of shared memory in equal slots; pages that nobody has written take no room."""

    def __init__(self, handle: int, slots: int, size: int) -> None:
        self.handle, self.slots, self.size = handle, slots, size
        self._map = mmap.mmap(handle, slots * size)
        self._closed = threading.Lock()  # the first `close` takes it for good

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
        """Free it. To close it again does nothing: the number of its file may be that of another file by then."""
        if self._closed.acquire(blocking=False):
            self._map.close()
            os.close(self.handle)
