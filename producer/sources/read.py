"""Reads the bytes of one labelled image again: from its tar, the store, the web or this machine."""

from __future__ import annotations

import urllib3

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3
from contract.errors import ImagemillError, ImageNotFound, InvalidSource
from producer.sources.images import from_file_uri


class Images:
    """Safe to use from several threads; `max_bytes` is the size that an image may have."""

    def __init__(self, store: ObjectStore, max_bytes: int) -> None:
        self._store, self._max_bytes = store, max_bytes
        self._web = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=20), retries=urllib3.Retry(3, backoff_factor=0.3)
        )

    def read(self, item: Item) -> bytes:
        """The bytes of an image; raises ImageNotFound where they cannot be had, StoreUnavailable."""
        if item.length is not None:
            raise ImageNotFound(f"{item.uri} is a sequence of {item.length:,} files, and no single image.")
        if item.size == 0:
            return b""  # a range of no bytes would be the whole tar
        try:
            if item.tar is not None:
                bucket, key = parse_s3(item.tar)
                return self._store.get(key, bucket=bucket, offset=item.offset or 0, length=item.size)
            if item.uri.startswith("s3://"):
                bucket, key = parse_s3(item.uri)
                return self._store.get(key, bucket=bucket, limit=self._max_bytes)
            if item.uri.startswith("file://"):
                return from_file_uri(item.uri).read_bytes()
            response = self._web.request("GET", item.uri, preload_content=False)
            try:
                if response.status != 200:
                    raise ImageNotFound(f"{item.uri} answered {response.status}.")
                return response.read(self._max_bytes + 1)
            finally:
                response.release_conn()
        except (OSError, urllib3.exceptions.HTTPError, InvalidSource) as error:
            raise ImageNotFound(f"{item.uri} cannot be read: {error}.") from error
        except ImagemillError as error:
            if error.retryable:
                raise
            raise ImageNotFound(str(error)) from error
