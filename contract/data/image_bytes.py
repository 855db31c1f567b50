"""Reads the bytes of one image from the object store or the web, up to a size limit.

The worker reads images ahead with it, the producer reads labelled images again. It knows nothing of pixels or tars.
"""

from __future__ import annotations

import urllib3

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import FetchFailed, ImageDenied, ImageNotFound, TooManyBytes


class ImageBytes:
    """Reads whole files of at most `max_bytes`. Safe to use from `threads` threads."""

    def __init__(self, store: ObjectStore, max_bytes: int, threads: int = 8) -> None:
        self._store, self._max_bytes = store, max_bytes
        self._web = urllib3.PoolManager(
            maxsize=threads,
            timeout=urllib3.Timeout(connect=5, read=20),
            retries=urllib3.Retry(3, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504)),
            headers={"User-Agent": "imagemill"},
        )

    def read(self, uri: str) -> bytes:
        """Return the bytes at an `s3://` or web address.

        Raises TooManyBytes; from the web ImageNotFound, ImageDenied or FetchFailed, and from the store what
        `ObjectStore.get` raises.
        """
        if uri.startswith(("http://", "https://")):
            data = self._download(uri)
        else:
            bucket, key = parse_s3(uri)
            data = self._store.get(key, bucket=bucket, limit=self._max_bytes)
        if len(data) > self._max_bytes:
            raise too_many_bytes(None, self._max_bytes)
        return data

    def _download(self, url: str) -> bytes:
        try:
            response = self._web.request("GET", url, preload_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise FetchFailed(f"{url} did not answer ({type(error).__name__}); retry the job later.") from error
        try:
            if response.status in (404, 410):
                raise ImageNotFound(f"{url} answered {response.status}; the image is not there.")
            if response.status in (401, 403):
                raise ImageDenied(f"{url} answered {response.status}; it needs a permission that workers lack.")
            if response.status != 200:
                raise FetchFailed(f"{url} answered {response.status}; retry the job later.")
            return response.read(self._max_bytes + 1)
        except urllib3.exceptions.HTTPError as error:
            raise FetchFailed(f"{url} broke off ({type(error).__name__}); retry the job later.") from error
        finally:
            response.release_conn()


def too_many_bytes(size: int | None, limit: int) -> TooManyBytes:
    """Return the error of a file that is larger than allowed; `size` is None if it was not read to its end."""
    what = f"The file has {size:,} bytes, more than" if size else "The file has more than"
    return TooManyBytes(f"{what} the {limit:,} allowed; raise IMAGEMILL_MAX_IMAGE_BYTES to read it.")
