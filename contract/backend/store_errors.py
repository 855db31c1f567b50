"""What the errors of an object store mean: maps those of minio and urllib3 to ours, by the codes of many stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError

from contract.backend.wire import why_not_secure
from contract.errors import (
    CredentialsRefused,
    ImagemillError,
    InvalidSettings,
    InvalidSource,
    ObjectChanged,
    ObjectNotFound,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from contract.printable import printable

# InvalidRange, a range beyond the end: the object has changed since it was listed.
ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "ResourceNotFound", "InvalidRange"})
# Codes of a store that has too much to do, that lost a part of a request, or that met another write of the same object.
_BUSY = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "RequestLimitExceeded", "Throttling", "ThrottlingException"}
    | {"RequestTimeout", "ServiceUnavailable", "InternalError", "ServerNotInitialized", "XMinioServerNotInitialized"}
    | {"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}
    | {"ConditionalRequestConflict", "OperationAborted"}
)
DENIED = frozenset({"AccessDenied", "AllAccessDisabled"})
# What may pass by itself: new credentials arrive, a clock is set right.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
_UNKNOWN = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity", "NotSignedUp", "AccountProblem"}
)
# Codes of MinIO, Ceph and others; an exhausted quota counts as full.
_FULL = frozenset(
    {"InsufficientStorage", "InsufficientCapacity", "QuotaExceeded", "StorageFull", "XMinioStorageFull"}
    | {"XMinioAdminBucketQuotaExceeded", "BucketQuotaExceeded"}
)
_HTTP_FULL = 507
_BUSY_HTTP = (408, 429)
FAILED = "InternalError"  # what SeaweedFS answers when its disk is full

FAULTS: dict[type[ImagemillError], str] = {
    StoreUnavailable: "unavailable",
    CredentialsRefused: "credentials",
    StoreFull: "full",
    StoreRefused: "refused",
    InvalidSettings: "settings",
}
"""What counts as a fault of the store, from the narrow to the wide; a missing object does not."""
GO_ON = "run the command again, or `imagemill resume` the job"


@contextmanager
def conditional(bucket: str, key: str) -> Iterator[None]:
    """Raise ObjectChanged for a condition that does not hold."""
    try:
        yield
    except S3Error as error:
        if error.code == "PreconditionFailed":
            raise ObjectChanged(f"s3://{bucket}/{key} was overwritten.") from error
        raise


def http_error(response: Any, bucket: str, key: str) -> Exception:
    text = bytes(response.data).decode(errors="replace")
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    if response.status >= 500 and not code:
        return ServerError(f"status {response.status}", response.status)
    return S3Error(response, code or f"HTTP{response.status}", text[:200], key, "", "", bucket, key)


def map_error(error: Exception, bucket: str, key: str, endpoint: str) -> ImagemillError | None:
    """Return our error for one of minio's or urllib3's, or None for a programming error."""
    if said := _full(error):
        return StoreFull(
            f"The store at {endpoint} has no room for s3://{bucket}/{key} ({said}); make room, then {GO_ON}."
        )
    if isinstance(error, S3Error):
        if error.code in ABSENT:
            return ObjectNotFound(f"There is no object s3://{bucket}/{key}.")
        if error.code == "NoSuchBucket":
            return InvalidSource(f"There is no bucket {bucket!r} at {endpoint}; create it, or correct the address.")
        if error.code in DENIED:
            return InvalidSettings(
                f"The store at {endpoint} refuses s3://{bucket}/{key} ({error.code}); check "
                "IMAGEMILL_S3_ACCESS_KEY, IMAGEMILL_S3_SECRET_KEY and the bucket's policy."
            )
        if (remedy := _remedy(error.code)) is not None:
            return CredentialsRefused(
                f"The store at {endpoint} refuses this machine ({error.code}); {remedy}.",
                retryable=error.code not in _UNKNOWN,
            )
        if error.code in _BUSY or error.response.status >= 500:
            return StoreUnavailable(
                f"The store at {endpoint} answered {error.code} for s3://{bucket}/{key}; try again."
            )
        return StoreRefused(f"The store at {endpoint} refuses s3://{bucket}/{key}: {error.code}, {error.message}")
    if isinstance(error, InvalidResponseError) and error._code < 500 and error._code not in _BUSY_HTTP:
        what = f"HTTP {error._code}, {printable(str(error._content_type or 'no type'))[:60]}"
        return StoreUnavailable(
            f"The server at {endpoint} answers as no S3 store does ({what}); correct IMAGEMILL_S3_ENDPOINT."
        )
    if isinstance(error, ServerError | InvalidResponseError):
        reason = f"HTTP {error._code}" if isinstance(error, InvalidResponseError) else str(error)
        return StoreUnavailable(f"The store at {endpoint} is not ready ({reason}); try again.")
    if isinstance(error, urllib3.exceptions.HTTPError | OSError):
        reached = f"cannot be reached ({type(error).__name__}); start it, or correct IMAGEMILL_S3_ENDPOINT"
        if isinstance(error, urllib3.exceptions.ProtocolError):
            reached = (
                "breaks the connection, or does not answer in HTTP; start it, or correct IMAGEMILL_S3_ENDPOINT, which "
                "begins with https:// if the store serves TLS"
            )
        return StoreUnavailable(f"The store at {endpoint} {why_not_secure(error) or reached}.")
    if isinstance(error, ValueError):
        return InvalidSource(f"s3://{bucket}/{key} is not an address that the store accepts: {error}.")
    return None


def _remedy(code: str | None) -> str | None:
    """Return what helps where the store refuses who asks, whatever the object; None for another error."""
    if code in _EXPIRED:
        return "renew the credentials"
    if code in _SKEWED:
        return "set the clock of this machine right"
    return "check IMAGEMILL_S3_ACCESS_KEY and IMAGEMILL_S3_SECRET_KEY" if code in _UNKNOWN else None


def _full(error: Exception) -> str | None:
    """Return how the store says that it is full, or None if it does not."""
    if isinstance(error, S3Error):
        return error.code if error.code in _FULL or error.response.status == _HTTP_FULL else None
    status = error.status_code if isinstance(error, ServerError) else getattr(error, "_code", None)
    return f"HTTP {_HTTP_FULL}" if status == _HTTP_FULL else None
