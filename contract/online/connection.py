"""How the online path reaches its Redis: address, options and scripts, for asyncio and for threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, ResponseError

from contract.backend.wire import (
    NotWritableError,
    RedisAddress,
    meant_by,
    redis_address,
    why_not_redis,
    why_not_secure,
)
from contract.errors import InvalidSettings, Overloaded, RedisUnavailable
from contract.settings import Settings

if TYPE_CHECKING:
    _Base = redis.asyncio.Connection
else:
    _Base = object

GROUP = "workers"
"""The consumer group of every stream of requests."""
SILENT_SECONDS = 2.0
"""A worker that has not said for so long that it serves a model does not."""
LOST = (redis.ConnectionError, redis.TimeoutError, BusyLoadingError)
"""What redis-py raises while Redis is away; the same call may succeed later."""
SOCKET_SECONDS = 5.0

_FOREIGN = ("WRONGTYPE", "is not an integer")
"""What Redis says of a key that somebody wrote over."""
_FOLDER = Path(__file__).parent
_NAME, _LEDGERS = "IMAGEMILL_ONLINE_REDIS_URL", "IMAGEMILL_REDIS_URL"


def script(name: str) -> str:
    """Return the source of a script: `ask`, `answer` or `withdraw`."""
    return (_FOLDER / "open.lua").read_text() + (_FOLDER / f"{name}.lua").read_text()


def online_address(settings: Settings) -> RedisAddress | None:
    """Return where the Redis of the online path is, or None if there is none; raises InvalidSettings."""
    if not settings.online_redis_url:
        return None
    try:
        return redis_address(settings.model_copy(update={"redis_url": settings.online_redis_url}))
    except InvalidSettings as error:
        raise InvalidSettings(str(error).replace(_LEDGERS, _NAME)) from None


def need_address(settings: Settings) -> RedisAddress:
    """Return where the Redis of the online path is; raises InvalidSettings if there is none."""
    address = online_address(settings)
    if address is None:
        raise InvalidSettings(
            f"No Redis carries requests to served models; set {_NAME}, best to a Redis of its own without persistence, "
            "with a `maxmemory` and the policy `noeviction`."
        )
    return address


def connect(address: RedisAddress, *, connections: int = 4) -> redis.Redis:
    """Return a client for threads that raises at once when Redis does not answer, and maps nothing."""
    pool = redis.BlockingConnectionPool.from_url(
        address.url,
        **address.tls,
        **options(),
        connection_class=address.connection_class,
        max_connections=connections,
        timeout=SOCKET_SECONDS,
    )
    return redis.Redis.from_pool(pool)


class _EndsUnwritable(_Base):
    """Ends where Redis accepts no writes, as the connections of `contract.backend.wire` do, for asyncio."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as answer:
            if (error := meant_by(answer)) is answer:
                raise
            if isinstance(error, NotWritableError):
                await self.disconnect()
            raise error from answer


class _PlainConnection(_EndsUnwritable, redis.asyncio.Connection):
    pass


class _TLSConnection(_EndsUnwritable, redis.asyncio.SSLConnection):
    pass


def connect_async(address: RedisAddress, *, connections: int, timeout: float) -> redis.asyncio.Redis:
    """Return a client for asyncio that raises at once when Redis does not answer, and maps nothing.

    A command waits for one of so many connections for `timeout` seconds.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        address.url,
        **address.tls,
        **options(),
        max_connections=connections,
        timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )
    pool.connection_class = _TLSConnection if address.tls else _PlainConnection  # `from_url` takes none for TLS
    return redis.asyncio.Redis.from_pool(pool)


def ping(settings: Settings) -> bool:
    """Return True if the Redis of the online path answers; raises RedisUnavailable and InvalidSettings."""
    with _asking(settings) as client:
        return bool(client.ping())


def info(settings: Settings) -> dict[str, Any]:
    """Return the reply of the Redis of the online path to `INFO`; raises as `ping` does."""
    with _asking(settings) as client:
        return dict(client.info())


@contextmanager
def _asking(settings: Settings) -> Iterator[redis.Redis]:
    address = need_address(settings)
    client = connect(address, connections=1)
    try:
        with mapped(address):
            yield client
    finally:
        client.close()


def options() -> dict[str, Any]:
    """Return the options of every connection, for redis-py and its asyncio twin."""
    return {
        "protocol": 2,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "socket_keepalive": True,
    }


@contextmanager
def mapped(address: RedisAddress) -> Iterator[None]:
    """Map errors of redis-py to ours; a Redis without memory is one that has too much to do."""
    try:
        yield
    except AuthenticationError as error:
        raise InvalidSettings(f"Redis refuses the password in {_NAME}: {error}.") from error
    except LOST as error:
        found = why_not_secure(error) or why_not_redis(error)
        why = found or f"cannot be reached; start it, or correct {_NAME}"
        raise RedisUnavailable(f"Redis at {address.shown} {why.replace(_LEDGERS, _NAME)}.") from error
    except redis.OutOfMemoryError as error:
        raise Overloaded(
            f"Redis at {address.shown} has no memory for another request; try again.", retry_after=1.0
        ) from error
    except (InvalidResponse, ResponseError) as error:
        if any(text in str(error) for text in _FOREIGN):
            raise RedisUnavailable(
                f"Redis at {address.shown} holds something else under a key of the online path ({error}); delete it, "
                f"or name a Redis of its own in {_NAME}."
            ) from error
        if (found := why_not_redis(error)) is None:
            raise  # a mistake of ours
        raise RedisUnavailable(f"The server at {address.shown} {found.replace(_LEDGERS, _NAME)}.") from error
