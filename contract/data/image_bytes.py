"""Reads the bytes of one image from the object store or the web, up to a size limit.

The worker reads images ahead with it, the producer reads labelled images again. It knows nothing of pixels or tars.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3
from contract.errors import ObjectNotFound
from contract.web.client import WebClient, too_many_bytes


class Room(Protocol):
    """The memory that a file may take while it is read."""

    @property
    def bytes(self) -> int: ...

    def grow(self, size: int) -> bool:
        """Make room for `size` bytes; return False if that would take waiting."""


class NeedsRoom(Exception):
    """There is no room for a file whose size was not known before; read it again with room for `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size:,} bytes are needed")
        self.size = size


class ImageBytes:
    """Reads whole files of at most `max_bytes`. Safe to use from many threads."""

    def __init__(self, store: ObjectStore, max_bytes: int, web: WebClient) -> None:
        self._store, self._max_bytes, self._web = store, max_bytes, web

    def read(self, uri: str, room: Room | None = None, etag: str = "") -> bytes:
        """Return the bytes at an `s3://` or web address; with `etag`, only those of this version of an object.

        Raises TooManyBytes, what `WebClient.read` or `ObjectStore.get` raises, and NeedsRoom if there are more bytes
        than `room` has and can get at once.
        """
        if not uri.startswith("s3://"):
            return self._web.read(uri, self._max_bytes, room=_asking(room))
        bucket, key = parse_s3(uri)
        limit = self._max_bytes if room is None else min(room.bytes, self._max_bytes)
        data = self._store.get(key, bucket=bucket, limit=limit, etag=etag)
        if len(data) > limit and limit < self._max_bytes:
            del data
            size = self._store.size(key, bucket=bucket)
            if size > self._max_bytes:
                raise too_many_bytes(size, self._max_bytes)
            _asking(room)(size)
            data = self._store.get(key, bucket=bucket, limit=size, etag=etag)
        if len(data) > self._max_bytes:
            raise too_many_bytes(None, self._max_bytes)
        return data

    def read_item(self, item: Item, room: Room | None = None) -> bytes:
        """Return the bytes of an item that is a file by itself, in the version that it names.

        What a watch has moved to its archive is read there. Raises what `read` raises.
        """
        try:
            return self.read(item.uri, room, item.etag or "")
        except ObjectNotFound:  # or overwritten since
            if item.archive is not None:
                with suppress(ObjectNotFound):
                    return self.read(item.archive, room)
            raise


def _asking(room: Room | None) -> Callable[[int], None]:
    """Return a function that makes room for a number of bytes, or raises NeedsRoom."""

    def ask(size: int) -> None:
        if room is not None and size > room.bytes and not room.grow(size):
            raise NeedsRoom(size)

    return ask
