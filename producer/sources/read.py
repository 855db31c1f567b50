"""Reads the bytes of one labelled image again: from its tar, the store, the web or this machine."""

from __future__ import annotations

from contract.backend.objects import ObjectStore
from contract.data.image_bytes import ImageBytes
from contract.data.items import Item, parse_s3
from contract.errors import ImagemillError, ImageNotFound
from contract.web.client import WebClient, too_many_bytes
from producer.sources.images import from_file_uri


class Images:
    """Reads labelled images of at most `max_bytes`. Safe to use from several threads."""

    def __init__(self, store: ObjectStore, max_bytes: int, web: WebClient) -> None:
        self._store, self._max_bytes, self._bytes = store, max_bytes, ImageBytes(store, max_bytes, web)

    def read(self, item: Item) -> bytes:
        """Return the bytes of an image; raises ImageNotFound if it cannot be read, and StoreUnavailable."""
        if item.length is not None:
            raise ImageNotFound(f"{item.uri} is a sequence of {item.length:,} files, not a single image.")
        if item.size == 0:
            return b""  # a range of no bytes would be the whole tar
        try:
            if item.tar is not None:
                bucket, key = parse_s3(item.tar)
                return self._store.get(key, bucket=bucket, offset=item.offset or 0, length=item.size)
            if item.uri.startswith("file://"):
                return self._read_file(item.uri)
            return self._bytes.read_item(item)
        except OSError as error:
            raise ImageNotFound(f"{item.uri} cannot be read: {error}.") from error
        except ImagemillError as error:
            if error.retryable:
                raise
            raise ImageNotFound(str(error)) from error

    def _read_file(self, uri: str) -> bytes:
        """Read a file on this machine, which a row in the bucket names: a device or a pipe would never end."""
        path = from_file_uri(uri)
        if not path.is_file():
            raise ImageNotFound(f"{uri} is no file any more.")
        with path.open("rb") as file:
            data = file.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise too_many_bytes(None, self._max_bytes)
        return data
