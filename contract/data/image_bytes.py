"""Reads the bytes of one image from the object store or the web, up to a size limit.

The worker reads images ahead with it, the producer reads labelled images again. It knows nothing of pixels or tars.
"""

from __future__ import annotations

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.web.client import WebClient, too_many_bytes


class ImageBytes:
    """Reads whole files of at most `max_bytes`. Safe to use from many threads."""

    def __init__(self, store: ObjectStore, max_bytes: int, web: WebClient) -> None:
        self._store, self._max_bytes, self._web = store, max_bytes, web

    def read(self, uri: str) -> bytes:
        """Return the bytes at an `s3://` or web address.

        Raises TooManyBytes, and what `WebClient.read` or `ObjectStore.get` raises.
        """
        if not uri.startswith("s3://"):
            return self._web.read(uri, self._max_bytes)
        bucket, key = parse_s3(uri)
        data = self._store.get(key, bucket=bucket, limit=self._max_bytes)
        if len(data) > self._max_bytes:
            raise too_many_bytes(None, self._max_bytes)
        return data
