"""A message that its reader trips over takes no place of the reader: the next one arrives."""

from __future__ import annotations

from typing import Any

from kombu.entity import Queue
from kombu.messaging import Consumer

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.queues import Queues
from contract.keys.queues import QUEUE_CONTROL
from contract.keys.redis import RedisKeys
from contract.settings import Settings
from tests.waiting import wait_until


def test_a_message_that_cannot_be_taken_is_dropped_and_counted(settings: Settings, ledger: Ledger) -> None:
    # Given two messages, and a reader that has room for one and trips over the first,
    app = make_app(settings)
    queues = Queues(app)
    queues.finalize("first")
    queues.finalize("second")
    read: list[str] = []

    def on_message(message: Any) -> None:
        read.append(str(message.decode()[0][0]))
        if len(read) == 1:
            raise TypeError("'bool' object is not iterable")
        message.ack()

    with app.connection_for_read() as connection, connection.channel() as channel:
        channel.basic_qos(0, 1, False)
        consumer = Consumer(channel, [Queue(QUEUE_CONTROL)], on_message=on_message, accept=["json"])
        with consumer:

            def both() -> bool:
                connection.drain_events(timeout=5)
                return len(read) == 2

            # I expect it to be given the second,
            wait_until(both, 30, "the second message")

    # and the first to be counted, and gone.
    assert read == ["first", "second"]
    assert ledger.rejected() == {"delivery failed": 1}
    prefix = RedisKeys(settings.namespace).broker_prefix
    assert ledger.redis.hlen(f"{prefix}unacked") == ledger.redis.llen(f"{prefix}{QUEUE_CONTROL}") == 0
    app.close()
