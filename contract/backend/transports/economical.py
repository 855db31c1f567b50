"""A transport that takes two or three connections of Redis in a process, whatever its threads, and polls rarely.

kombu opens a pool for each channel, and Celery a channel for whatever sends: twelve connections in a busy worker, of
which Redis allows 10,000 in all. Here every channel of a process sends and acknowledges through one pool; only the
blocking read of a consumer keeps a connection for itself.
Tickets are not entered in the books of taken messages: one that is lost is replaced by the reconciler.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakValueDictionary

from kombu.asynchronous import get_event_loop
from kombu.transport.virtual import QoS as VirtualQoS
from redis import BlockingConnectionPool
from redis.exceptions import RedisError, ResponseError

from contract.backend.transports.guarded import GuardedChannel, GuardedQoS, GuardedTransport
from contract.keys.queues import TASK_RUN

_CONNECTIONS = 2
"""Connections of a process for sending and acknowledging; the second one is for when an answer is late."""
_POLL_SECONDS = 5
"""How long a blocking read waits before it is sent again; a new message ends it at once."""

_lock = threading.Lock()


class SharedPool(BlockingConnectionPool):
    """The connections of one process with the same parameters."""

    users = 0
    """Channels that send through it."""


_pools: WeakValueDictionary[frozenset[tuple[str, Any]], SharedPool] = WeakValueDictionary()


def join_pool(**parameters: Any) -> SharedPool:
    """Return the pool of this process with these parameters, to be left with `leave_pool`."""
    parameters["max_connections"] = _CONNECTIONS
    key = frozenset(parameters.items())
    with _lock:
        pool = _pools.get(key)
        if pool is None:
            pool = _pools[key] = SharedPool(**parameters)  # type: ignore[no-untyped-call]
        pool.users += 1
        return pool


def leave_pool(pool: SharedPool) -> None:
    """Close the connections of a pool that nobody else uses."""
    with _lock:
        pool.users -= 1
        if not pool.users:
            pool.disconnect()


def wake_consumer() -> None:
    """Have the consumer of this process look at once whether it may take another message; it does every second."""
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(_nothing)


def _nothing() -> None:
    """Only end the wait of the event loop."""


class EconomicalQoS(GuardedQoS):
    """Books of taken messages, kept without a transaction: whoever restores one tolerates a half of an entry.

    A ticket is in none: it says nothing, twice as many wait as there are slots, and the lease is what survives a worker
    that dies. So taking and acknowledging one sends nothing to Redis.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        if message.headers.get("task") == TASK_RUN:
            VirtualQoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]

    def ack(self, delivery_tag: str) -> None:
        if self._is_ticket(delivery_tag):
            self._quick_ack(delivery_tag)
        else:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if self._is_ticket(delivery_tag):
            self._quick_ack(delivery_tag)
        else:
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]

    def _is_ticket(self, delivery_tag: str) -> bool:
        message = self._delivered.get(delivery_tag)
        return message is not None and message.headers.get("task") == TASK_RUN

    @contextmanager
    def pipe_or_acquire(self, pipe: Any = None, client: Any = None) -> Iterator[Any]:
        if pipe:
            yield pipe
            return
        with self.channel.conn_or_acquire(client) as own:
            yield own.pipeline(transaction=False)

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:
        # The index last: whoever restores messages finds them there, and drops what has no message.
        with self.pipe_or_acquire(pipe) as both:
            return both.hdel(self.unacked_key, delivery_tag).zrem(self.unacked_index_key, delivery_tag)


class EconomicalChannel(GuardedChannel):
    """A channel that sends through the shared pool."""

    QoS = EconomicalQoS

    _sender: Any = None
    _reader_id: int | None = None
    _reader_socket: Any = None

    @property
    def client(self) -> Any:
        """The client of the blocking read; until the channel may consume, the shared one, to say hello with."""
        if not self._registered:
            return self._create_client()  # type: ignore[no-untyped-call]
        if "client" not in self.__dict__:
            self.__dict__["client"] = self._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        return self.__dict__["client"]

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield `client`, or the one of the shared pool, which is kept: to make one takes longer than to send."""
        if client is None:
            if self._sender is None:
                self._sender = self._create_client()  # type: ignore[no-untyped-call]
            client = self._sender
        yield client

    def close(self) -> None:
        """Close the channel; a blocking read, which would have to be waited for, is ended by Redis."""
        if self._in_poll and self._reader_id is not None:
            with suppress(RedisError, OSError), self.conn_or_acquire() as client:
                client.client_unblock(self._reader_id)
        super().close()  # type: ignore[no-untyped-call]

    def _get_pool(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._get_pool(asynchronous=True)  # type: ignore[no-untyped-call]
        parameters = self._connparams()  # type: ignore[no-untyped-call]
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=parameters["db"])
        return join_pool(**parameters)

    def _disconnect_pools(self) -> None:
        pool, self._pool, self._sender = self._pool, None, None
        if pool is not None:
            leave_pool(pool)
        super()._disconnect_pools()  # type: ignore[no-untyped-call]

    def _brpop_start(self, timeout: int | None = None) -> None:
        connection = self.client.connection
        if connection._sock is not self._reader_socket:
            connection.send_command("CLIENT", "ID")
            self._reader_id = None
            with suppress(ResponseError):  # a user who may not ask
                self._reader_id = int(connection.read_response())
            self._reader_socket = connection._sock
        super()._brpop_start(timeout)  # type: ignore[no-untyped-call]


class EconomicalTransport(GuardedTransport):
    """A transport of such channels."""

    Channel = EconomicalChannel
    brpop_timeout = _POLL_SECONDS
