"""Reads small objects faster: obstore reads in Rust, without the interpreter lock.

A GET of 100 KB costs the minio SDK 0.55 ms of CPU and obstore 0.19 ms; labelling objects of a bucket on
two cores went from 0.85 to 0.92 of the ideal loop. It answers or says nothing: every error is left to
`contract.backend.objects`, which asks again and knows what each means.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from contract.backend.credentials import credentials_of
from contract.backend.wire import authorities, store_address
from contract.errors import CredentialsRefused
from contract.settings import Settings

if TYPE_CHECKING:
    from obstore.store import S3Credential


class ObstoreReader:
    """Called with bucket, key, offset and length (None: all); the bytes, or None to ask the slow way."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._credentials = credentials_of(settings)
        self._bucket = lru_cache(maxsize=16)(self._open)

    def __call__(self, bucket: str, key: str, offset: int, length: int | None) -> bytes | None:
        try:
            store = self._bucket(bucket)
            if length is not None:
                return bytes(obstore.get_range(store, key, start=offset, length=length))
            return bytes(obstore.get(store, key).bytes()) if not offset else None
        except (BaseError, CredentialsRefused, ValueError, OSError):
            return None

    def _sign(self) -> S3Credential:
        found = self._credentials.retrieve()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.session_token,
            # Its own clock decides when to ask again; keys of the settings last.
            "expires_at": found.expiration and found.expiration.replace(tzinfo=UTC),
        }

    def _open(self, bucket: str) -> S3Store:
        settings = self._settings
        address, trusted = store_address(settings), authorities(settings)
        return S3Store(
            bucket,
            endpoint=address.url,
            region=settings.s3_region,
            credential_provider=self._sign,
            client_options={
                "allow_http": not address.secure,
                "timeout": timedelta(seconds=30),
                "connect_timeout": timedelta(seconds=5),
                **({"root_certificate": trusted} if trusted else {}),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )
