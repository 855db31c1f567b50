"""Connections of one process: few, whatever its threads, and none that has to be waited for."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from queue import Empty

import pytest
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.message import Message
from kombu.messaging import Consumer

from contract.backend.broker import Transport, make_app
from contract.backend.ledger import Ledger
from contract.backend.queues import Queues
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_CONTROL, QUEUE_GENERATE
from contract.settings import Settings
from tests.waiting import wait_until

THREADS = 16


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    """An app whose connections have a name in `CLIENT LIST`."""
    with closing(make_app(settings)) as made:
        made.conf.broker_transport_options["client_name"] = name_of(settings)
        yield made


def name_of(settings: Settings) -> str:
    return f"{settings.namespace}-{os.getpid()}"


def connections(ledger: Ledger, settings: Settings) -> list[str]:
    """What each connection of the app did last."""
    rows = ledger.redis.client_list()
    return sorted(row["cmd"] for row in rows if row["name"] == name_of(settings))


def test_threads_that_send_share_two_connections(app: Celery, settings: Settings, ledger: Ledger) -> None:
    # Given many threads that send at the same moment,
    queues, together = Queues(app), threading.Barrier(THREADS)

    def send() -> None:
        together.wait()
        for n in range(20):
            queues.plan(f"job-{n}")

    threads = [threading.Thread(target=send) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # I expect every message to be there, and two connections at most.
    assert ledger.redis.llen(f"{ledger.keys.broker_prefix}{QUEUE_CONTROL}") == 20 * THREADS
    assert 1 <= len(connections(ledger, settings)) <= 2


def test_a_consumer_takes_one_more_and_ends_at_once(
    app: Celery, settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a consumer that would wait for an hour,
    monkeypatch.setattr(Transport, "brpop_timeout", 3600)
    got = []
    with app.connection_for_read() as connection:
        assert isinstance(connection, Connection)
        queue = Queue(QUEUE_CLASSIFY, app.amqp.queues[QUEUE_CLASSIFY].exchange, routing_key=QUEUE_CLASSIFY)
        with Consumer(connection, [queue], callbacks=[lambda body, message: (got.append(body), message.ack())]):
            with pytest.raises((TimeoutError, Empty, OSError)):
                connection.drain_events(timeout=0.1)
            wait_until(lambda: "brpop" in connections(ledger, settings), 10, "the read")
            # if something comes, I expect it at once;
            ledger.send_tickets(QUEUE_CLASSIFY)
            connection.drain_events(timeout=60)
            assert got[0][0] == []
            with pytest.raises((TimeoutError, Empty, OSError)):
                connection.drain_events(timeout=0.1)
            assert len(connections(ledger, settings)) <= 3
    # and if it is closed, I expect the read to be over, and nothing to be taken any more.
    ledger.send_tickets(QUEUE_CLASSIFY)
    assert ledger.redis.llen(f"{ledger.keys.broker_prefix}{QUEUE_CLASSIFY}") == 1


def test_the_pool_goes_with_the_last_channel(app: Celery, settings: Settings, ledger: Ledger) -> None:
    # Given two channels of one process, if one is closed, I expect the other to go on over the same connection.
    with app.connection_for_write() as first:
        first.default_channel.queue_purge("nothing")
        with app.connection_for_write() as second:
            second.default_channel.queue_purge("nothing")
            assert len(connections(ledger, settings)) == 1
        first.default_channel.queue_purge("nothing")
        assert len(connections(ledger, settings)) == 1
    # If both are, I expect none to be left.
    wait_until(lambda: not connections(ledger, settings), 10, "the connection to be closed")


def test_a_ledger_has_two_connections_for_all_threads(ledger: Ledger, settings: Settings) -> None:
    with closing(Ledger(settings)) as busy:
        busy.redis.connection_pool.connection_kwargs["client_name"] = name_of(settings)
        together = threading.Barrier(THREADS)

        def ask() -> None:
            together.wait()
            for _ in range(20):
                busy.state("job")

        threads = [threading.Thread(target=ask) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(connections(ledger, settings)) <= 2


def test_tickets_are_sent_together_and_taken_one_by_one(app: Celery, settings: Settings, ledger: Ledger) -> None:
    # Given many tickets that were sent at once, in more than one command,
    ledger.send_tickets(QUEUE_CLASSIFY, 1200)
    waiting = f"{ledger.keys.broker_prefix}{QUEUE_CLASSIFY}"
    messages = [json.loads(raw) for raw in ledger.redis.lrange(waiting, 0, -1)]
    # I expect each to be a message of its own,
    assert len({message["properties"]["delivery_tag"] for message in messages}) == 1200
    assert len({message["headers"]["id"] for message in messages}) == 1200
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = Queue(QUEUE_CLASSIFY, app.amqp.queues[QUEUE_CLASSIFY].exchange, routing_key=QUEUE_CLASSIFY)
        channel.basic_qos(0, 3, False)
        got: list[Message] = []

        def take(number: int) -> None:
            while len(got) < number:
                connection.drain_events(timeout=60)

        def takes_no_more() -> bool:
            with pytest.raises((TimeoutError, Empty, OSError)):
                connection.drain_events(timeout=0.1)
            return ledger.redis.llen(waiting) == 1200 - len(got)

        with Consumer(channel, [queue], on_message=got.append):
            # no more to be taken than there is room for, one that is acknowledged or rejected to make room for one,
            take(3)
            assert takes_no_more()
            got[1].ack()
            take(4)
            got[0].reject(requeue=True)
            take(5)
            assert takes_no_more()
            # and none of them to be in the books of what was taken.
            assert not ledger.redis.keys(f"{ledger.keys.broker_prefix}unacked*")


def test_a_message_that_names_a_job_is_in_the_books_until_it_is_acknowledged(
    app: Celery, settings: Settings, ledger: Ledger
) -> None:
    ledger.send_tickets(QUEUE_GENERATE)
    Queues(app).finish("job")
    with app.connection_for_read() as connection:
        queue = Queue(QUEUE_GENERATE, app.amqp.queues[QUEUE_GENERATE].exchange, routing_key=QUEUE_GENERATE)
        got: list[Message] = []
        with Consumer(connection, [queue], on_message=got.append):
            while len(got) < 2:
                connection.drain_events(timeout=60)
            ticket, finish = got
            unacked = f"{ledger.keys.broker_prefix}unacked"
            assert ledger.redis.hkeys(unacked) == [finish.delivery_tag]
            ticket.ack()
            assert ledger.redis.hkeys(unacked) == [finish.delivery_tag]
            finish.ack()
            assert not ledger.redis.exists(unacked)


def test_a_channel_sends_with_one_client_until_its_pool_is_another(app: Celery) -> None:
    with app.connection_for_write() as connection, connection.channel() as channel:
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()
