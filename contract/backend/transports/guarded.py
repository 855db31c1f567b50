"""A transport of messages that no message can end: what is malformed is taken out of its queue, counted, and dropped.

kombu parses what it takes from Redis in its event loop, where an exception ends the worker, with exit status 0. Here
each message is checked as it arrives (`contract.backend.messages`), and one that is malformed looks to kombu like an
empty queue. The count is in Redis, where `imagemill doctor` finds it. Nothing is lost: the reconciler sends again
whatever the bucket says is not done.
"""

from __future__ import annotations

import functools
import logging
import threading
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport.redis import PrefixedStrictRedis
from kombu.utils.encoding import bytes_to_str
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from contract.backend.messages import MalformedMessageError, check
from contract.backend.wire import PlainConnection, TLSConnection
from contract.keys.queues import QUEUES

log = logging.getLogger(__name__)

REJECTED_OPTION = "rejected_key"
"""The transport option with the name of the hash that counts what was rejected, by kind."""
_KEPT_SECONDS = 30 * 24 * 3600
_told: set[str] = set()
_lock = threading.Lock()


def reject(client: Any, key: str | None, kind: str, what: object) -> None:
    """Count a rejected message, and log the first of its kind in this process."""
    with _lock:
        fresh = kind not in _told
        _told.add(kind)
    level = logging.ERROR if fresh else logging.DEBUG
    log.log(level, "A message was rejected (%s): %.300s; see who writes to Redis", kind, repr(what)[:300])
    if key is not None:
        # Without the prefix of the queues.
        plain = Redis(connection_pool=client.connection_pool)
        with suppress(RedisError, OSError):
            plain.hincrby(key, kind, 1)
            plain.expire(key, _KEPT_SECONDS)


_TYPES = dict.fromkeys(QUEUES, "list") | {"unacked": "hash", "unacked_index": "zset"}


def remove_misplaced(client: GuardedRedis) -> None:
    """Delete what stands in place of a queue, or of the books of taken messages, and is of another type."""
    plain = Redis(connection_pool=client.connection_pool)
    for name, wanted in _TYPES.items():
        key = f"{client.global_keyprefix}{name}"
        if bytes_to_str(plain.type(key)) not in (wanted, "none"):
            plain.delete(key)
            reject(client, client.rejected_key, "not a queue", key)


class GuardedRedis(PrefixedStrictRedis):
    """A client whose reads from queues return well-formed messages only."""

    def __init__(self, *args: Any, rejected_key: str | None = None, **kwargs: Any) -> None:
        self.rejected_key = rejected_key
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Return what the server answered; None, as from an empty queue, in place of a malformed message."""
        try:
            answer = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if command_name not in ("BRPOP", "RPOP") or "WRONGTYPE" not in str(error):
                raise
            remove_misplaced(self)
            return None
        if command_name == "BRPOP" and answer:
            queue, raw = answer
            try:
                check(bytes_to_str(queue), raw)
            except MalformedMessageError as error:
                reject(self, self.rejected_key, error.kind, raw[:200])
                return None
        return answer


class GuardedChannel(kombu_redis.Channel):
    """A channel that reads through `GuardedRedis`, and connects again where Redis accepts no writes."""

    connection_class = PlainConnection
    connection_class_ssl = TLSConnection

    @property
    def rejected_key(self) -> str | None:
        found: str | None = self.connection.client.transport_options.get(REJECTED_OPTION)
        return found

    def _get_client(self) -> Any:
        found = super()._get_client()  # type: ignore[no-untyped-call]
        if isinstance(found, functools.partial) and found.func is PrefixedStrictRedis:
            return functools.partial(GuardedRedis, **found.keywords, rejected_key=self.rejected_key)
        return found

    def _receive_one(self, c: Any) -> Any:
        """Read a broadcast; one that cannot be parsed is rejected."""
        try:
            return super()._receive_one(c)  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors):
            raise
        except Exception as error:
            reject(self.client, self.rejected_key, "broadcast", error)
            raise Empty from None


class GuardedTransport(kombu_redis.Transport):
    """A transport whose deliveries never raise for what is in a message."""

    Channel = GuardedChannel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]
        except self.connection_errors:
            raise
        except Exception as error:
            log.exception("A message of %s could not be taken", queue)
            for channel in self.channels[:1]:
                reject(channel.client, channel.rejected_key, "delivery failed", error)
                remove_misplaced(channel.client)
            self._drop(message)

    def _drop(self, message: Any) -> None:
        """Take a message off the books: one that nobody works on would hold a place of this process for ever."""
        tag = message["properties"]["delivery_tag"]
        for channel in self.channels:
            if tag in channel.qos._delivered:
                channel.basic_reject(tag, requeue=False)


class GuardedQoS(kombu_redis.QoS):
    """Books of taken messages, of which damaged entries are removed."""

    def restore_visible(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().restore_visible(*args, **kwargs)  # type: ignore[no-untyped-call]
        except ResponseError:
            remove_misplaced(self.channel.client)
            return None

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        channel = self.channel
        with channel.conn_or_acquire(client) as redis:
            try:
                super().restore_by_tag(tag, redis, leftmost)  # type: ignore[no-untyped-call]
            except (*channel.connection_errors, ResponseError):
                raise
            except Exception as error:
                reject(redis, channel.rejected_key, "taken message", error)
                redis.zrem(self.unacked_index_key, tag)
                redis.hdel(self.unacked_key, tag)
