"""A connection to Redis: pauses and retries, what its errors mean, locks, and plain reads and writes.

What is kept there is the business of the ledger, and of packages that keep keys of their own, such as `contract.fleet`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, ResponseError
from redis.retry import Retry as RedisRetry

from contract.backend.circuit import INTERACTIVE_SECONDS, Circuit
from contract.backend.lock import Lock, lock
from contract.backend.wire import NotWritableError, redis_address, why_not_redis, why_not_secure
from contract.errors import InvalidSettings, RedisUnavailable
from contract.instruments import REDIS_SECONDS
from contract.keys.redis import RedisKeys
from contract.settings import Settings

T = TypeVar("T")

_CONNECTIONS = 2
"""Connections of one process; the second one is for when a call waits for an answer that is late."""
_INTERACTIVE_CONNECTIONS = 40
"""One for each thread of the HTTP API: with fewer, threads would wait for one another before they wait for Redis."""
_SILENT_SECONDS = 10.0
"""How long a try waits for an answer."""


def _patient() -> dict[str, Any]:
    return {
        "max_connections": _CONNECTIONS,
        "socket_timeout": _SILENT_SECONDS,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
    }


def _interactive() -> dict[str, Any]:
    """Return options with which a call takes `INTERACTIVE_SECONDS` at most, if Redis is silent and is tried twice."""
    return {
        "max_connections": _INTERACTIVE_CONNECTIONS,
        "timeout": INTERACTIVE_SECONDS,
        "socket_timeout": INTERACTIVE_SECONDS / 2,
        "socket_connect_timeout": INTERACTIVE_SECONDS / 2,
    }


class _TwiceSilent(RedisRetry):
    """Retries as told, but not after a second try without an answer.

    The first may be the fault of a connection that ended without a word, as firewalls end idle ones.
    """

    def call_with_retry(
        self, do: Callable[[], T], fail: Callable[..., Any], is_retryable: Any = None, *more: Any, **options: Any
    ) -> T:
        silent = 0

        def once(error: Exception) -> bool:
            nonlocal silent
            silent += isinstance(error, redis.TimeoutError)
            return silent < 2 and (is_retryable is None or is_retryable(error))

        return super().call_with_retry(do, fail, once, *more, **options)


class RedisClient:
    """One Redis.

    A call retries for `patience` seconds while Redis refuses connections, then raises RedisUnavailable. While Redis is
    silent, as a stopped process or a network that swallows packets is, each of these tries waits for 10 s. Threads
    share two connections: a call takes a fraction of a millisecond, and thousands of workers must fit under Redis'
    limit.

    If `interactive`, somebody waits for each call: a silent Redis is asked twice within `INTERACTIVE_SECONDS`, and
    after a call that had no answer all calls fail at once until there is one again.
    """

    circuit: Circuit | None = None
    """What makes calls fail at once, if `interactive`."""

    def __init__(self, settings: Settings, *, patience: float = 3.0, interactive: bool = False) -> None:
        self._settings = settings
        self.keys = RedisKeys(settings.namespace)
        # Pauses of at most a second: about `patience` seconds in all.
        retries = max(1, int(patience / 0.6))
        retry = _TwiceSilent if interactive else RedisRetry
        self._address = redis_address(settings)
        pool = redis.BlockingConnectionPool.from_url(
            self._address.url,
            **self._address.tls,
            connection_class=self._address.connection_class,
            protocol=2,
            decode_responses=True,
            encoding_errors="replace",  # of messages that nobody of ours has sent
            socket_keepalive=True,
            **(_interactive() if interactive else _patient()),
            retry=retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), retries),
            retry_on_error=[redis.ConnectionError, redis.TimeoutError, BusyLoadingError],
        )
        self.redis = redis.Redis.from_pool(pool)
        if interactive:
            self.circuit = Circuit(self._look)
        self.answered_at: float | None = None
        """When Redis last answered, by the monotonic clock."""
        self._scripts: dict[str, Script] = {}

    def close(self) -> None:
        """Close idle connections; a later call reopens them."""
        if self.circuit is not None:
            self.circuit.close()
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

        It waits for 5 seconds at most, less than a socket does; that of an interactive client would not.
        """
        with self._mapped(timed=False):
            found: Any = self.redis.xread({key: after}, block=round(min(seconds, 5.0) * 1000), count=1000)
        return [(str(id), fields) for _, entries in found or () for id, fields in entries]

    def info(self) -> dict[str, Any]:
        """Return the statistics of Redis (`INFO`)."""
        with self._mapped():
            return self.redis.info()

    def _look(self) -> None:
        with self._mapped(timed=False, looking=True):
            self.redis.ping()

    @contextmanager
    def _mapped(self, *, timed: bool = True, looking: bool = False) -> Iterator[None]:
        if self.circuit is not None and not looking:
            self.circuit.check()
        try:
            with REDIS_SECONDS.seconds() if timed else nullcontext():
                yield
            self.answered_at = time.monotonic()
        except AuthenticationError as error:
            raise InvalidSettings(f"Redis refuses the password in IMAGEMILL_REDIS_URL: {error}.") from error
        except (redis.ConnectionError, redis.TimeoutError, BusyLoadingError) as error:
            why = why_not_secure(error) or why_not_redis(error)
            silent = isinstance(error, redis.TimeoutError)
            what = "does not answer; find out what blocks it" if silent else "cannot be reached; start it"
            why = f"Redis at {self._address.shown} {why or f'{what}, or correct IMAGEMILL_REDIS_URL'}."
            # A Redis that takes no writes may be read.
            if self.circuit is not None and not isinstance(error, NotWritableError):
                self.circuit.open(why)
            raise RedisUnavailable(why) from error
        except redis.OutOfMemoryError as error:
            raise RedisUnavailable("Redis is out of memory; raise `maxmemory` and try again.") from error
        except (InvalidResponse, ResponseError) as error:
            if (why := why_not_redis(error)) is None:
                raise  # a mistake of ours
            raise RedisUnavailable(f"The server at {self._address.shown} {why}.") from error
