"""The Celery app of both sides: queues, routes, JSON only, and a transport that loses no message.

Redis has no acknowledgements; kombu emulates them with a hash `unacked`. Two details of that emulation would break our
guarantees; `PatientQoS` corrects them. It knows no job kind.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from contract.backend.transports.economical import (
    EconomicalChannel,
    EconomicalQoS,
    EconomicalTransport,
    wake_consumer,
)
from contract.backend.transports.guarded import REJECTED_OPTION
from contract.backend.wire import redis_address, why_not_redis, why_not_secure
from contract.errors import RedisUnavailable
from contract.keys.queues import (
    QUEUE_CHECK,
    QUEUE_CONTROL,
    QUEUE_GENERATE,
    QUEUES,
    TASK_CHECK,
    TASK_FINALIZE,
    TASK_FINISH,
    TASK_PLAN,
    TASK_TICK,
)
from contract.keys.redis import RedisKeys
from contract.settings import Settings

log = logging.getLogger(__name__)


class PatientQoS(EconomicalQoS):
    """Acknowledgements that survive a lost connection.

    kombu restores every unacknowledged message as soon as a connection drops, so a running task would start a second
    time; and after a restart of Redis the restore fails and ends the worker. Here the messages stay in `unacked`, where
    the visibility timeout and the reconciler take care of them, and a task that ends acknowledges by tag, over a new
    connection if need be.
    """

    def restore_unacked(self, client: Any = None) -> list[Any]:
        self._delivered.clear()
        return []

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:  # a dead channel may raise anything
            self._quick_ack(delivery_tag)
            self._ack_by_tag(delivery_tag)
        wake_consumer()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        except Exception:
            self._quick_ack(delivery_tag)
            if not requeue:
                self._ack_by_tag(delivery_tag)

    def _ack_by_tag(self, delivery_tag: str) -> None:
        """Remove the message over a fresh connection; if that fails, a redelivery finds the shard committed."""
        try:
            with self.channel.connection.client.clone() as fresh:
                channel = fresh.default_channel
                with channel.conn_or_acquire() as client:
                    client.zrem(channel.unacked_index_key, delivery_tag)
                    client.hdel(channel.unacked_key, delivery_tag)
        except (RedisError, OperationalError, OSError, AttributeError) as error:
            log.info("The message %s stays until its visibility timeout: %s", delivery_tag, error)


class Channel(EconomicalChannel):
    QoS = PatientQoS


class Transport(EconomicalTransport):
    Channel = Channel


def make_app(settings: Settings, *, silent_seconds: float = 30.0) -> Celery:
    """Return the app on `settings.redis_url`; it connects lazily. Raises InvalidSettings if that is no such URL.

    A message waits for Redis' answer for `silent_seconds`.
    """
    address = redis_address(settings)
    app = Celery("imagemill", set_as_current=False)
    app.conf.update(
        broker_url=address.url,
        broker_transport="contract.backend.broker:Transport",
        # kombu takes TLS from the scheme only if it chooses the transport itself, and then without verifying anything.
        broker_use_ssl=dict(address.tls) or False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # else what Redis answers to a read ends the process, amid its shards
        broker_transport_options={
            "visibility_timeout": settings.visibility_timeout,
            "unacked_restore_interval": min(60, settings.visibility_timeout),
            "unacked_restore_throttle": 1,
            "priority_steps": [0],
            "socket_timeout": silent_seconds,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": RedisKeys(settings.namespace).broker_prefix,
            REJECTED_OPTION: RedisKeys(settings.namespace).rejected,
        },
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        task_default_queue=QUEUE_CONTROL,
        task_routes={
            TASK_PLAN: QUEUE_CONTROL,
            TASK_FINALIZE: QUEUE_CONTROL,
            TASK_TICK: QUEUE_CONTROL,
            TASK_CHECK: QUEUE_CHECK,
            TASK_FINISH: QUEUE_GENERATE,
        },
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        # A connection and broadcasts of every worker for what nobody asks: the heartbeats are ours, in the ledger.
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
        timezone="UTC",
        beat_schedule={
            "tick": {
                "task": TASK_TICK,
                "schedule": settings.reconcile_seconds,
                # A tick that waited longer is stale: the next one does its work.
                "options": {"expires": max(5.0, settings.reconcile_seconds)},
            }
        },
    )
    return app


def send(app: Celery, task: str, args: Sequence[str | int]) -> None:
    """Send a task; raises RedisUnavailable if Redis does not take it."""
    try:
        app.send_task(task, args=list(args), retry=False, ignore_result=True)
    except (OperationalError, RedisError, OSError) as error:
        fault = why_not_secure(error) or why_not_redis(error)
        why = f"the server {fault}" if fault else type(error).__name__
        raise RedisUnavailable(
            f"Redis did not accept the message {task} {tuple(args)} ({why}); the reconciler sends it again once Redis "
            "answers, or run `imagemill resume`."
        ) from error
