"""The object store, on the minio SDK: the only module that speaks S3.

It retries while a store does not answer, and can write an object only if it is absent; `store_errors` says what the
errors of a store mean. It knows none of Imagemill's keys.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import urllib3
from minio import Minio
from minio.datatypes import Upload
from minio.deleteobjects import DeleteObject
from minio.error import S3Error, ServerError

from contract.backend.credentials import credentials_of
from contract.backend.listing import Entry, Page, parse_page
from contract.backend.store_errors import ABSENT, DENIED, FAILED, FAULTS, GO_ON, conditional, http_error, map_error
from contract.backend.wire import store_address, tls_context
from contract.errors import (
    ImagemillError,
    InvalidSettings,
    ObjectChanged,
    ObjectNotFound,
    ServiceUnavailable,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from contract.instruments import STORE_FAULTS, STORE_SECONDS
from contract.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
ObstoreReader = Callable[[str, str, int, "int | None"], "bytes | None"]
_PAGE = 1000
_EXISTS = 412
_PART = 16 * 2**20
_PIECE = 2**20


class ObjectStore:
    """One store and its default bucket.

    A call retries for `patience` seconds while the store does not answer, then raises StoreUnavailable. Other errors:
    ObjectNotFound, StoreRefused, StoreFull, InvalidSource (no such bucket), InvalidSettings (access denied),
    CredentialsRefused.
    `obstore_reader(bucket, key, offset, length or None)` is asked first for an object's bytes; None sends the read to
    the SDK. `heard` is called, on the thread that reads, for each piece of an object that arrives.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        patience: float = 5.0,
        obstore_reader: ObstoreReader | None = None,
        heard: Callable[[], None] | None = None,
    ) -> None:
        self.bucket = settings.bucket
        self._patience = patience
        self.answered_at: float | None = None
        """When the store last answered, by the monotonic clock."""
        self._fast_get, self._heard = obstore_reader, heard
        self._conditional: set[str] = set()
        """Buckets whose store has been seen to refuse a second write."""
        self.endpoint = settings.s3_endpoint
        address = store_address(settings)
        # A read that stalls for 30 s is better retried; retries are ours, below.
        self._http = urllib3.PoolManager(
            maxsize=64, timeout=urllib3.Timeout(connect=5, read=30), retries=False, ssl_context=tls_context(settings)
        )
        try:
            self._minio = Minio(
                address.netloc,
                credentials=credentials_of(settings),
                secure=address.secure,
                region=settings.s3_region,
                http_client=self._http,
            )
        except ValueError as error:
            raise InvalidSettings(f"IMAGEMILL_S3_ENDPOINT={self.endpoint!r} is not an address: {error}.") from error

    def close(self) -> None:
        """Close idle connections; a later call reopens them."""
        self._http.clear()

    def ensure_bucket(self) -> None:
        """Create the default bucket if it does not exist."""

        def make() -> None:
            if not self._minio.bucket_exists(bucket_name=self.bucket):
                self._minio.make_bucket(bucket_name=self.bucket)

        self._call("bucket", self.bucket, "", make)

    def bucket_exists(self, bucket: str) -> bool:
        return bool(self._call("bucket", bucket, "", lambda: self._minio.bucket_exists(bucket_name=bucket)))

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
        """Return the bytes of an object, or `length` of them from `offset`; read at most `limit` + 1.

        With `etag`, raises ObjectChanged if the object has another one.
        """
        bucket = bucket or self.bucket
        if self._fast_get is not None and not etag:
            # The limit is sent as a range; a server returns what exists of it.
            began = time.perf_counter()
            found = self._fast_get(bucket, key, offset, limit + 1 if limit is not None else length)
            if found is not None:
                STORE_SECONDS.observe(time.perf_counter() - began, "get")
                self.answered_at = time.monotonic()
                return found

        def read() -> bytes:
            response = self._minio.get_object(bucket_name=bucket, object_name=key, offset=offset, length=length or 0)
            # Compared here, for not every store heeds If-Match.
            if etag and response.headers.get("ETag", "").strip('"') != etag:
                response.close()
                response.release_conn()
                raise ObjectChanged(f"s3://{bucket}/{key} was overwritten.")
            try:
                data = self._joined(response, length, None if limit is None else limit + 1)
            except BaseException:
                response.close()
                raise
            if limit is not None and len(data) > limit:
                response.close()
            response.release_conn()
            return data

        return self._call("get", bucket, key, read)

    def _joined(self, response: urllib3.BaseHTTPResponse, length: int | None, at_most: int | None) -> bytes:
        """Return the rest of an answer, which should have `length` bytes, or so many bytes of it."""
        # What is asked for exactly is not copied: a range of 8 MiB takes the reader a third of the CPU.
        size = min(length, _PART) if length and not self._heard else _PIECE
        pieces: list[bytes] = []
        held = 0
        while piece := response.read(size if at_most is None else min(size, at_most - held)):
            pieces.append(piece)
            held += len(piece)
            if self._heard:
                self._heard()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pieces(self, key: str, *, bucket: str = "", size: int = _PART) -> Iterator[bytes]:
        """Yield the bytes of an object, `size` at a time; each piece is a request that is retried by itself."""
        offset, total = 0, self.size(key, bucket=bucket)
        while offset < total:
            piece = self.get(key, bucket=bucket, offset=offset, length=min(size, total - offset))
            offset += len(piece)
            yield piece

    def size(self, key: str, *, bucket: str = "") -> int:
        """Return the size of an object in bytes."""
        return self.stat(key, bucket=bucket)[0]

    def stat(self, key: str, *, bucket: str = "") -> tuple[int, str]:
        """Return the size of an object in bytes, and its etag."""
        bucket = bucket or self.bucket

        def stat() -> tuple[int, str]:
            found = self._minio.stat_object(bucket_name=bucket, object_name=key)
            return int(found.size or 0), (found.etag or "").strip('"')

        try:
            return self._call("stat", bucket, key, stat)
        except InvalidSettings:
            self.get(key, bucket=bucket, length=1)  # the answer to a HEAD has no body that says why
            return self._call("stat", bucket, key, stat)

    def exists(self, key: str, *, bucket: str = "") -> bool:
        try:
            self.size(key, bucket=bucket)
        except ObjectNotFound:
            return False
        return True

    def put(self, key: str, data: bytes, *, bucket: str = "") -> None:
        """Write an object, replacing an existing one."""
        bucket = bucket or self.bucket
        self._call(
            "put",
            bucket,
            key,
            lambda: self._minio.put_object(
                bucket_name=bucket,
                object_name=key,
                data=io.BytesIO(data),
                length=len(data),
                part_size=_PART * 4,
            ),
            writes=True,
        )

    def put_file(self, key: str, path: Path, *, bucket: str = "") -> None:
        """Write an object from a file, in parts if it is large."""
        bucket = bucket or self.bucket
        self._call(
            "put",
            bucket,
            key,
            lambda: self._minio.fput_object(bucket_name=bucket, object_name=key, file_path=str(path)),
            writes=True,
        )

    def put_if_absent(self, key: str, data: bytes, *, bucket: str = "") -> bool:
        """Write an object only if there is none; return whether it was written.

        The SDK has no public way to send `If-None-Match`, so the request is a presigned PUT with that header. A write
        whose answer was lost counts as not written: read what is there. Every commit relies on this, so a store that
        overwrites all the same raises StoreRefused at the first write.
        """
        bucket = bucket or self.bucket
        if bucket not in self._conditional:
            return self._prove(key, data, bucket)
        return self._put_if_absent(key, data, bucket)

    def _prove(self, key: str, data: bytes, bucket: str) -> bool:
        """Write an object if it is absent, and then once more what is there, which the store must refuse."""
        try:
            there, fresh = self.get(key, bucket=bucket), False
        except ObjectNotFound:
            there, fresh = data, self._put_if_absent(key, data, bucket)
        # Twice, for somebody may have deleted the object in between.
        if self._put_if_absent(key, there, bucket) and self._put_if_absent(key, there, bucket):
            raise StoreRefused(
                f"The store at {self.endpoint} ignores If-None-Match, so two writers could overwrite each other's "
                "results; use a store that supports conditional PUT, such as those in docs/howto/stores.md."
            )
        self._conditional.add(bucket)
        return fresh

    def _put_if_absent(self, key: str, data: bytes, bucket: str) -> bool:
        # A presigned request does not cover its body. Without the digest SeaweedFS keeps an empty object if the writer
        # is killed between the head and the body of its request.
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        headers = {"If-None-Match": "*", "Content-MD5": digest}

        def write() -> bool:
            url = self._minio.get_presigned_url(
                method="PUT", bucket_name=bucket, object_name=key, expires=timedelta(hours=1)
            )
            response = self._http.request("PUT", url, body=data, headers=headers)
            if response.status == _EXISTS:
                return False
            if response.status >= 300:
                raise http_error(response, bucket, key)
            return True

        return self._call("put_if_absent", bucket, key, write, writes=True)

    def copy(self, key: str, to: str, *, bucket: str = "", to_bucket: str = "", etag: str) -> None:
        """Copy a version of an object within the store, replacing what is at `to`; objects of up to 5 GB.

        Raises ObjectChanged if the object has another etag. The version is checked by the store itself, which
        `heeds_etags` must have said that it does.
        """
        bucket, to_bucket = bucket or self.bucket, to_bucket or self.bucket
        headers = {"x-amz-copy-source": quote(f"/{bucket}/{key}"), "x-amz-copy-source-if-match": etag}

        def write() -> None:
            # Not the SDK's `copy_object`, which asks for the size first.
            with conditional(bucket, key):
                answer = self._minio._execute("PUT", to_bucket, to, headers=dict(headers))
            if b"CopyObjectResult" not in answer.data:  # a copy may fail after a status of 200 was sent
                raise ServerError("the copy was broken off", 500)

        self._call("copy", bucket, key, write)

    def delete(self, key: str, *, bucket: str = "", etag: str = "") -> None:
        """Delete an object; a missing one is not an error.

        With `etag`, raises ObjectChanged if the object has another one, as far as the store `heeds_etags`.
        """
        bucket = bucket or self.bucket
        if not etag:
            self._call("delete", bucket, key, lambda: self._minio.remove_object(bucket_name=bucket, object_name=key))
            return

        def remove() -> None:
            # The SDK has no public way to send `If-Match`.
            with conditional(bucket, key):
                self._minio._execute("DELETE", bucket, key, headers={"If-Match": f'"{etag}"'})

        try:
            self._call("delete", bucket, key, remove)
        except ObjectChanged:
            raise
        except ObjectNotFound:
            pass

    def heeds_etags(self, key: str) -> bool:
        """Return whether the store refuses to copy and to delete another version than the one that is meant.

        `key` and `key`.copy are written, and deleted again.
        """
        wrong, copy = "0" * 32, f"{key}.copy"
        self.put(key, b"probe")
        try:
            for attempt in (partial(self.copy, key, copy, etag=wrong), partial(self.delete, key, etag=wrong)):
                try:
                    attempt()
                except ObjectChanged:
                    continue
                except (StoreRefused, StoreUnavailable):  # one that does not know the header may answer 501
                    return False
                return False
            return self.exists(key)
        finally:
            self.delete(key)
            self.delete(copy)

    def delete_all(self, keys: Iterable[str]) -> None:
        """Delete objects, a thousand with each request; missing ones are no errors."""
        rest = iter(keys)
        while some := tuple(islice(rest, _PAGE)):
            self._call("delete", self.bucket, some[0], partial(self._delete_some, some))

    def _delete_some(self, keys: Sequence[str]) -> None:
        wanted = [DeleteObject(key) for key in keys]
        for error in self._minio.remove_objects(bucket_name=self.bucket, delete_object_list=wanted):
            if error.code in DENIED:
                raise InvalidSettings(f"The store at {self.endpoint} refuses to delete {error.name} ({error.code}).")
            if error.code not in ABSENT:
                raise StoreRefused(f"The store at {self.endpoint} does not delete {error.name}: {error.code}.")

    def abort_uploads(self, older_than: float, *, dry_run: bool = False, page: int = 1000) -> list[str]:
        """Abort multipart uploads that began before a time, in seconds since the epoch; return their keys."""
        late = self._call("list", self.bucket, "", partial(self._late_uploads, older_than, page))
        for upload in late if not dry_run else ():
            key, id = str(upload.object_name), str(upload.upload_id)
            # The SDK has no public way to list uploads or to abort one.
            self._call("delete", self.bucket, key, partial(self._minio._abort_multipart_upload, self.bucket, key, id))
        return [str(upload.object_name) for upload in late]

    def _late_uploads(self, older_than: float, page: int) -> Sequence[Upload]:
        found: list[Upload] = []
        key = upload = None
        while True:
            answer = self._minio._list_multipart_uploads(
                bucket_name=self.bucket, key_marker=key, upload_id_marker=upload, max_uploads=page
            )
            found += [
                one
                for one in answer.uploads
                if one.initiated_time is not None and one.initiated_time.timestamp() < older_than
            ]
            # minio 7.2.20 keeps the second marker under a name that its own property does not read.
            key, upload = answer.next_key_marker, vars(answer).get("self._next_upload_id_marker")
            if not answer.is_truncated or not (key or upload):
                return found

    def list(
        self, prefix: str, *, bucket: str = "", after: str = "", folders: bool = False, at_once: int = _PAGE
    ) -> Iterator[Entry]:
        """Yield the objects whose keys start with `prefix`, in key order, page by page.

        The listing starts after the key `after`. With `folders` it does not descend, and yields the prefixes of the
        next level too. A listing that breaks off resumes after the last key it yielded. `at_once` is how many keys the
        store names in one answer, for who needs the first few of many.
        """
        for page in self.pages(prefix, bucket=bucket, after=after, folders=folders, at_once=at_once):
            yield from page

    def pages(
        self, prefix: str, *, bucket: str = "", after: str = "", folders: bool = False, at_once: int = _PAGE
    ) -> Iterator[Sequence[Entry]]:
        """Yield what `list` does, as many objects at a time as the store names in one answer."""
        bucket = bucket or self.bucket
        while True:
            page = self._call("list", bucket, prefix, partial(self._page, bucket, prefix, after, folders, at_once))
            yield page.entries
            if not page.after:
                return
            after = page.after

    def presign(self, key: str, *, bucket: str = "", hours: float = 24.0) -> str:
        """Return a URL at which anyone can read the object for `hours`."""
        url: str = self._minio.presigned_get_object(
            bucket_name=bucket or self.bucket, object_name=key, expires=timedelta(hours=hours)
        )
        return url

    def presign_put(self, key: str, *, hours: float = 1.0) -> str:
        """Return a URL to which anyone can put this object of the default bucket for `hours`."""
        url: str = self._minio.presigned_put_object(
            bucket_name=self.bucket, object_name=key, expires=timedelta(hours=hours)
        )
        return url

    def _page(self, bucket: str, prefix: str, after: str, folders: bool, at_once: int) -> Page:
        # What is empty is sent too: policies compare it.
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(at_once), "prefix": prefix}
        query |= {"delimiter": "/" if folders else ""} | ({"start-after": after} if after else {})
        # The SDK's own listing takes 50 us of CPU a key.
        answer = self._minio._execute("GET", bucket, query_params=dict(query))
        try:
            return parse_page(answer.data, folders=folders)
        except ValueError as error:
            raise StoreUnavailable(
                f"The store at {self.endpoint} answered a listing of s3://{bucket}/{prefix} that cannot be read "
                f"({error}); try again, or correct IMAGEMILL_S3_ENDPOINT if this goes on."
            ) from error

    def _call(self, operation: str, bucket: str, key: str, call: Callable[[], T], *, writes: bool = False) -> T:
        with STORE_SECONDS.seconds(operation):
            return self._retried(operation, bucket, key, call, writes=writes)

    def _retried(self, operation: str, bucket: str, key: str, call: Callable[[], T], *, writes: bool) -> T:
        """Run `call`, retry it while the store does not answer, and map what it raises.

        A store that answers every attempt at a write with an internal error is taken to be full.
        """
        deadline = time.monotonic() + self._patience
        pause = 0.1
        fails = writes
        while True:
            try:
                answer = call()
                self.answered_at = time.monotonic()
                return answer
            except ImagemillError:
                raise
            except Exception as error:
                mapped = map_error(error, bucket, key, self.endpoint)
                if mapped is None:
                    raise
                self._note(operation, mapped)
                fails = fails and isinstance(error, S3Error) and error.code == FAILED
                if fails and time.monotonic() + pause > deadline:
                    mapped = StoreFull(
                        f"The store at {self.endpoint} failed each write of s3://{bucket}/{key} for "
                        f"{self._patience:.0f} s; its disk may be full: see its log, make room, then {GO_ON}."
                    )
                if not mapped.retryable or time.monotonic() + pause > deadline:
                    raise mapped from error
                log.debug("%s; trying again in %.1f s", mapped, pause)
                # There is no event to wait for while a store is down.
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def _note(self, operation: str, error: ImagemillError) -> None:
        """Count a request that was not served, and remember that the store answered, if it did."""
        if not isinstance(error, ServiceUnavailable):
            self.answered_at = time.monotonic()
        fault = next((name for kind, name in FAULTS.items() if isinstance(error, kind)), None)
        if fault is not None:
            STORE_FAULTS.add(1, operation, fault)
