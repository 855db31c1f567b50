"""Reads the bytes of one labelled image again: from its tar, the store, the web or this machine."""

from __future__ import annotations

from contract.backend.objects import ObjectStore
from contract.data.image_bytes import ImageBytes
from contract.data.items import Item, parse_s3
from contract.errors import ImagemillError, ImageNotFound
from contract.web.client import WebClient
from producer.sources.images import from_file_uri


class Images:
    """Reads labelled images of at most `max_bytes`. Safe to use from several threads."""

    def __init__(self, store: ObjectStore, max_bytes: int, web: WebClient) -> None:
        self._store, self._bytes = store, ImageBytes(store, max_bytes, web)

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
                return from_file_uri(item.uri).read_bytes()
            return self._bytes.read(item.uri)
        except OSError as error:
            raise ImageNotFound(f"{item.uri} cannot be read: {error}.") from error
        except ImagemillError as error:
            if error.retryable:
                raise
            raise ImageNotFound(str(error)) from error
