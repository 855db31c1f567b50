"""How Redis and the object store are reached: every connection takes its address, credentials and TLS from here.

The scheme of an address decides whether a connection is encrypted: `rediss://` and `https://` are, and nothing falls
back to plaintext. The certificate must be valid for the host and signed by an authority of the system or of
`IMAGEMILL_CA_FILE`.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
from redis.exceptions import (
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from contract.backend.secret_url import SecretUrl
from contract.errors import InvalidSettings
from contract.settings import Settings

if TYPE_CHECKING:
    _Base = redis.Connection
else:
    _Base = object

_REDIS_PORT = 6379
_SCHEMES = ("redis", "rediss")
_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""Options of a Redis URL that name PEM files: authorities, and the certificate and key of the client."""
_STRICT = {"ssl_cert_reqs": ("required", "CERT_REQUIRED"), "ssl_check_hostname": ("true", "True")}
"""Options that may only ask for what is done anyway."""
_FORM = "redis://[USER]:[PASSWORD]@HOST[:PORT][/DB], or rediss://… for TLS"


_UNWRITABLE = {
    "MISCONF": "accepts no writes, because it cannot save to its disk; see its log, and make room there",
    "NOREPLICAS": "accepts no writes, because too few replicas follow it; start them, or lower `min-replicas-to-write`",
    "UNBLOCKED": "has just become a replica; point IMAGEMILL_REDIS_URL to its primary",
    "BUSY": "is busy with a script that does not end; end it with `SCRIPT KILL`",
}
"""Answers of a Redis that takes no writes for which redis-py has no class, by their first word."""
_IN_SCRIPT = re.compile(r"Error running script \(call to f_\w+\): @user_script:\d+: (?:@user_script: \d+: -?)?")
"""What Redis before 7 puts before an error within a script."""
_FORBIDDEN = re.compile(r"ACL failure in script|The user executing the script can't")
"""Errors within a script that lacks a permission, of Redis 7 and of Redis 6.2."""
_CLASSES = {"READONLY": ReadOnlyError, "MASTERDOWN": MasterDownError, "OOM": OutOfMemoryError}


class _Unshown(str):
    """A URL for libraries that take nothing but `str`: its repr, as in a dump of their settings, has no password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(str(SecretUrl(self)))


class NotWritableError(redis.ConnectionError):
    """Redis answered that it accepts no writes, or none now; the message says why, as a predicate of the server."""


class _EndsUnwritable(_Base):
    """Ends where Redis accepts no writes, so that the next connection may reach another server.

    A failover is often the change of an address, and a connection to the former primary outlives it. redis-py takes
    such an answer for a mistake in the command, and so does kombu, which then ends the worker.
    """

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as answer:
            error = meant_by(answer)
            if error is answer:
                raise
            if isinstance(error, NotWritableError):
                self.disconnect()  # type: ignore[no-untyped-call]
            raise error from answer


class PlainConnection(_EndsUnwritable, redis.Connection):
    """A connection to Redis without TLS."""


class TLSConnection(_EndsUnwritable, redis.SSLConnection):
    """A connection to Redis with TLS."""


@dataclass(frozen=True)
class RedisAddress:
    """A Redis server, as redis-py and kombu take it."""

    host: str
    port: int
    db: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `redis.SSLConnection`; empty for a plaintext connection."""

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return f"{self._host}:{self.port}/{self.db}"

    @property
    def url(self) -> str:
        """The URL without options; user name and password are percent-encoded."""
        scheme = "rediss" if self.tls else "redis"
        secret = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        return _Unshown(f"{scheme}://{secret}{self.shown}")

    @property
    def connection_class(self) -> type[redis.Connection]:
        """What connects to it."""
        return TLSConnection if self.tls else PlainConnection

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def redis_address(settings: Settings) -> RedisAddress:
    """Return where and how to connect to Redis.

    Raises InvalidSettings, which never quotes the URL, if it has another scheme, an unknown option, or an option that
    would weaken TLS.
    """
    url = settings.redis_url.get_secret_value()
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in _SCHEMES:
        raise InvalidSettings(_unknown_scheme(scheme))
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        host, port = unquote(parts.hostname or ""), parts.port or _REDIS_PORT
        db = int(options.pop("db", "") or parts.path.strip("/") or 0)
        # In a URL that was not encoded, a password with `/`, `?` or `#` ends up in other parts.
        if not host or parts.fragment or ";" in url or "@" in parts.path + parts.query:
            raise ValueError
    except ValueError:
        raise InvalidSettings(
            f"IMAGEMILL_REDIS_URL cannot be read; write {_FORM}, with %XX for special characters of the password."
        ) from None
    return RedisAddress(
        host=host,
        port=port,
        db=db,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=_redis_tls(settings, scheme, options),
    )


@dataclass(frozen=True)
class StoreAddress:
    """An S3 endpoint: `host[:port]`, and whether to speak TLS to it."""

    netloc: str
    secure: bool

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.netloc}"


def store_address(settings: Settings) -> StoreAddress:
    """Return where and how to reach the object store; a bare `host:port` is plain HTTP.

    Raises InvalidSettings for another scheme, and for credentials in the address.
    """
    endpoint = settings.s3_endpoint
    parts = urlsplit(endpoint if "//" in endpoint else f"http://{endpoint}")
    if "@" in parts.netloc:
        raise InvalidSettings(
            "IMAGEMILL_S3_ENDPOINT holds credentials; move them to IMAGEMILL_S3_ACCESS_KEY and IMAGEMILL_S3_SECRET_KEY."
        )
    if parts.scheme not in ("http", "https"):
        raise InvalidSettings(f"IMAGEMILL_S3_ENDPOINT={endpoint!r} is not an address; write host:port, or https://….")
    return StoreAddress(parts.netloc, parts.scheme == "https")


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and those of `IMAGEMILL_CA_FILE`.

    Raises InvalidSettings if that file cannot be read.
    """
    context = ssl.create_default_context()
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(cafile=settings.ca_file.expanduser())
        except OSError as error:  # ssl.SSLError is one
            why = "it holds no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
            raise InvalidSettings(f"IMAGEMILL_CA_FILE={settings.ca_file} cannot be used: {why}.") from error
    return context


def authorities(settings: Settings) -> str | None:
    """Return the certificates of `IMAGEMILL_CA_FILE` as PEM text, or None if it is not set.

    Raises InvalidSettings if the file cannot be read.
    """
    if settings.ca_file is None:
        return None
    tls_context(settings)
    return settings.ca_file.expanduser().read_text()


def why_not_secure(error: BaseException) -> str | None:
    """Return why a TLS connection was refused, as a predicate of the server, or None if TLS is not the cause."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message.rstrip(".")
            return f"has a certificate that is not trusted ({why}); correct IMAGEMILL_CA_FILE or the certificate"
        if isinstance(cause, ssl.SSLError):
            why = (cause.reason or "no reason given").lower().replace("_", " ")
            return f"does not complete a TLS handshake ({why}); check that it serves TLS on this port"
        if isinstance(cause, TimeoutError) and "handshake" in str(cause):  # as Redis does, which waits for a line
            return "does not answer a TLS handshake; check that it serves TLS on this port"
    return None


def why_not_redis(error: BaseException) -> str | None:
    """Return why what answers at an address is no Redis that serves us, as a predicate of it, or None for other errors.

    The answer of a stranger is quoted up to 60 characters.
    """
    for cause in _causes(error):
        if isinstance(cause, InvalidResponse):
            return _not_redis(str(cause).partition(": ")[2])
        if isinstance(cause, NotWritableError):
            return str(cause)
        if (why := why_not_writable(cause)) is not None:
            return why
        if isinstance(cause, MovedError | ClusterDownError):
            return "is a member of a Redis Cluster, which is not supported; point IMAGEMILL_REDIS_URL to a single Redis"
        if isinstance(cause, NoPermissionError):
            return f"refuses a command to the user of IMAGEMILL_REDIS_URL ({cause}); extend the user's ACL"
        if isinstance(cause, ResponseError) and "unknown command" in str(cause).lower():
            return f"lacks a command ({str(cause)[:60]!r}); use Redis 6.2 or newer, or correct IMAGEMILL_REDIS_URL"
        said = str(cause) if isinstance(cause, redis.ConnectionError | OSError) else ""
        if "closed by server" in said or "reset by peer" in said:
            return "closes the connection; correct IMAGEMILL_REDIS_URL, which begins with rediss:// if Redis serves TLS"
    return None


def meant_by(answer: ResponseError) -> redis.RedisError:
    """Return NotWritableError if Redis accepts no writes, else the answer, with its class if it comes from a script.

    redis-py knows no class of an error within a script if Redis is older than version 7, or if a permission is missing.
    """
    error, text = answer, str(answer)
    if (prefix := _IN_SCRIPT.match(text)) is not None:
        text = text[prefix.end() :]
        code, _, rest = text.partition(" ")
        error = _CLASSES[code](rest) if code in _CLASSES else ResponseError(text)
    if _FORBIDDEN.match(text):
        error = NoPermissionError(text)
    why = why_not_writable(error)
    return error if why is None else NotWritableError(why)


def why_not_writable(error: BaseException) -> str | None:
    """Return why Redis accepts no writes, as a predicate of the server, or None for another error."""
    if isinstance(error, ReadOnlyError):
        return "is a read-only replica; point IMAGEMILL_REDIS_URL to its primary"
    if isinstance(error, MasterDownError):
        return "is a replica that has lost its primary; point IMAGEMILL_REDIS_URL to the primary"
    return _UNWRITABLE.get(str(error).partition(" ")[0]) if isinstance(error, ResponseError) else None


def _not_redis(answer: str) -> str:
    """Return the predicate of a server that gave `answer`, the repr of a line, in place of Redis' protocol."""
    if answer.startswith(("b'\\x15\\x03", 'b"\\x15\\x03')):  # an alert of TLS
        return "serves TLS; write rediss:// in IMAGEMILL_REDIS_URL"
    return f"is no Redis (it answers {answer[1:60]}); correct IMAGEMILL_REDIS_URL"


def _redis_tls(settings: Settings, scheme: str, options: dict[str, str]) -> dict[str, Any]:
    for name, value in options.items():
        if name in _STRICT and value not in _STRICT[name]:
            raise InvalidSettings(
                f"IMAGEMILL_REDIS_URL asks for {name}={value}, but certificates are always verified; drop the option, "
                "and name a private authority with IMAGEMILL_CA_FILE."
            )
        if name not in _STRICT and name not in _FILES:
            raise InvalidSettings(f"IMAGEMILL_REDIS_URL has the unknown option {name!r}; known are db and ssl_….")
    if scheme != "rediss":
        if options:
            raise InvalidSettings(
                f"IMAGEMILL_REDIS_URL has the option {next(iter(options))!r} but no TLS; write rediss:// instead."
            )
        return {}
    tls: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    tls |= {name: value for name, value in options.items() if name in _FILES}
    if settings.ca_file is not None:
        tls_context(settings)  # one sentence now, rather than a connection that fails without naming the file
        tls["ssl_ca_certs"] = str(settings.ca_file.expanduser())
    return tls


def _unknown_scheme(scheme: str) -> str:
    if "sentinel" in scheme:
        return (
            f"IMAGEMILL_REDIS_URL has the scheme {scheme}://, but Imagemill does not ask Sentinel; give the address of "
            "the primary, or of a proxy that follows it, as redis:// or rediss://."
        )
    if scheme in ("unix", "redis+socket", "redis+unix", "socket"):
        return (
            f"IMAGEMILL_REDIS_URL has the scheme {scheme}://, but queue and ledger need a TCP address; write {_FORM}."
        )
    # The text before `://` may be a part of a password.
    return f"IMAGEMILL_REDIS_URL is not a Redis URL; write {_FORM}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it; urllib3 keeps a reason, and so do its errors of exhausted retries."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        others = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        waiting.extend(other for other in others if isinstance(other, BaseException))
