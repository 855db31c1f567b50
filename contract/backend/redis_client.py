"""A connection to Redis: pauses and retries, what its errors mean, locks, and plain reads and writes.

What is kept there is the business of the ledger, and of packages that keep keys of their own, such as `contract.fleet`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, ResponseError
from redis.retry import Retry as RedisRetry

from contract.backend.lock import Lock, lock
from contract.backend.wire import redis_address, why_not_redis, why_not_secure
from contract.errors import InvalidSettings, RedisUnavailable
from contract.instruments import REDIS_SECONDS
from contract.keys.redis import RedisKeys
from contract.settings import Settings

_CONNECTIONS = 2
"""Connections of one process; the second one is for when a call waits for an answer that is late."""


class RedisClient:
    """One Redis.

    A call retries for `patience` seconds while Redis does not answer, then raises RedisUnavailable. Threads share two
    connections: a call takes a fraction of a millisecond, and thousands of workers must fit under Redis' limit.
    """

    def __init__(self, settings: Settings, *, patience: float = 3.0) -> None:
        self._settings = settings
        self.keys = RedisKeys(settings.namespace)
        # Pauses of at most a second: about `patience` seconds in all.
        retries = max(1, int(patience / 0.6))
        self._address = redis_address(settings)
        pool = redis.BlockingConnectionPool.from_url(
            self._address.url,
            **self._address.tls,
            connection_class=self._address.connection_class,
            max_connections=_CONNECTIONS,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",  # of messages that nobody of ours has sent
            socket_timeout=10,
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,
            retry=RedisRetry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), retries),
            retry_on_error=[redis.ConnectionError, redis.TimeoutError, BusyLoadingError],
        )
        self.redis = redis.Redis.from_pool(pool)
        self.answered_at: float | None = None
        """When Redis last answered, by the monotonic clock."""
        self._scripts: dict[str, Script] = {}

    def close(self) -> None:
        """Close idle connections; a later call reopens them."""
        self.redis.close()

    # Locks

    def lock(self, what: str, id: str, seconds: float) -> AbstractContextManager[Lock | None]:
        """Hold a lock for the body of a `with` statement; its target is None if another process holds it.

        The lock is renewed meanwhile, and expires `seconds` after its holder dies.
        """
        return lock(self.redis, self.keys.lock(what, id), seconds, self._mapped)

    def once_in(self, seconds: float, what: str) -> bool:
        """Return True for one call in every `seconds`, across all processes."""
        with self._mapped():
            return bool(self.redis.set(self.keys.lock(what), "", nx=True, px=int(seconds * 1000)))

    def locked(self, what: str, id: str) -> bool:
        with self._mapped():
            return bool(self.redis.exists(self.keys.lock(what, id)))

    # Keys of any kind

    @contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        """Yield a pipeline to read with, not a transaction; raises RedisUnavailable."""
        with self._mapped(), self.redis.pipeline(transaction=False) as pipe:
            yield pipe

    def hash(self, key: str) -> dict[str, str]:
        """Return a hash, empty if there is none."""
        with self._mapped():
            return cast("dict[str, str]", self.redis.hgetall(key))

    def value(self, key: str) -> str | None:
        """Return a string, or None if there is none."""
        with self._mapped():
            return cast("str | None", self.redis.get(key))

    def set_value(self, key: str, value: str, seconds: int) -> None:
        """Set a string that expires."""
        with self._mapped():
            self.redis.set(key, value, ex=seconds)

    def script(self, text: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a Lua script in one step."""
        found = self._scripts.get(text) or self._scripts.setdefault(text, self.redis.register_script(text))
        with self._mapped():
            return found(keys=list(keys), args=list(args))

    def newest(self, key: str) -> str:
        """Return the id of the last entry of a stream, or one before all if there is none."""
        with self._mapped():
            found = self.redis.xrevrange(key, count=1)
        return str(found[0][0]) if found else "0-0"

    def read_stream(self, key: str, *, after: str, seconds: float) -> list[tuple[str, dict[str, str]]]:
        """Return the entries of a stream behind the id `after`, as soon as there are any, or none after `seconds`.

        It waits for 5 seconds at most, less than a socket does.
        """
        with self._mapped(timed=False):
            found: Any = self.redis.xread({key: after}, block=round(min(seconds, 5.0) * 1000), count=1000)
        return [(str(id), fields) for _, entries in found or () for id, fields in entries]

    def info(self) -> dict[str, Any]:
        """Return the statistics of Redis (`INFO`)."""
        with self._mapped():
            return self.redis.info()

    @contextmanager
    def _mapped(self, *, timed: bool = True) -> Iterator[None]:
        try:
            with REDIS_SECONDS.seconds() if timed else nullcontext():
                yield
            self.answered_at = time.monotonic()
        except AuthenticationError as error:
            raise InvalidSettings(f"Redis refuses the password in IMAGEMILL_REDIS_URL: {error}.") from error
        except (redis.ConnectionError, redis.TimeoutError, BusyLoadingError) as error:
            why = why_not_secure(error) or why_not_redis(error)
            why = why or "cannot be reached; start it, or correct IMAGEMILL_REDIS_URL"
            raise RedisUnavailable(f"Redis at {self._address.shown} {why}.") from error
        except redis.OutOfMemoryError as error:
            raise RedisUnavailable("Redis is out of memory; raise `maxmemory` and try again.") from error
        except (InvalidResponse, ResponseError) as error:
            if (why := why_not_redis(error)) is None:
                raise  # a mistake of ours
            raise RedisUnavailable(f"The server at {self._address.shown} {why}.") from error
