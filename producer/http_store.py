"""The bucket as the HTTP API shows it: the API lists objects and signs addresses, at which the store has their bytes.

So whatever reads the bucket with keys, such as an export, does so with a token too. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound, UnknownJob
from producer.http_api import HttpApi

_PAGE = 1000


class HttpStore(ObjectStore):
    """What the owner of a token may read. Raises ObjectNotFound, ObjectChanged, and what the API raises."""

    def __init__(self, api: HttpApi) -> None:
        """Ask the API for the name of its bucket."""
        self._api = api
        first = api.json("GET", "/v1/objects", params={"prefix": "models/", "limit": 1})
        self.bucket, self.endpoint = str(first["bucket"]), api.url

    def close(self) -> None:
        """Leave the connections to who opened them."""

    def get(
        self,
        key: str,
        *,
        bucket: str = "",
        offset: int = 0,
        length: int | None = None,
        limit: int | None = None,
        etag: str = "",
    ) -> bytes:
        most = limit + 1 if limit is not None else length
        return self._read(key, bucket, offset, None if most is None else offset + most, etag)[0]

    def size(self, key: str, *, bucket: str = "") -> int:
        return self._read(key, bucket, 0, 1)[1]

    def exists(self, key: str, *, bucket: str = "") -> bool:
        first = next(self.list(key, bucket=bucket, at_once=1), None)
        return first is not None and first.key == key

    def pages(
        self, prefix: str, *, bucket: str = "", after: str = "", folders: bool = False, at_once: int = _PAGE
    ) -> Iterator[Sequence[Entry]]:
        assert not folders, "the API lists objects alone"
        while True:
            params = {"prefix": self._address(prefix, bucket), "after": after, "limit": at_once}
            try:
                page = self._api.json("GET", "/v1/objects", params=params)
            except UnknownJob:  # a job that is gone, or not there yet, has no objects
                return
            yield [Entry(one["key"], one["size"], etag=one["etag"]) for one in page["objects"]]
            if not page["after"]:
                return
            after = page["after"]

    def presign(self, key: str, *, bucket: str = "", hours: float = 24.0) -> str:
        """Return a URL at which anyone can read the object for `hours`, 168 at most."""
        body = {"addresses": [self._address(key, bucket)], "hours": hours}
        (link,) = self._api.json("POST", "/v1/objects/links", json=body)
        return str(link["url"])

    def _read(self, key: str, bucket: str, begin: int, end: int | None, etag: str = "") -> tuple[bytes, int]:
        if begin == end:
            return b"", 0
        try:
            url = self.presign(key, bucket=bucket, hours=1.0)
        except UnknownJob as error:
            raise ObjectNotFound(str(error)) from error
        return self._api.read(url, self._address(key, bucket), begin, end, etag)

    def _address(self, key: str, bucket: str) -> str:
        return f"s3://{bucket or self.bucket}/{key}"
