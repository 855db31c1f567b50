"""What a process in which somebody waits does while Redis does not answer."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
from redis import Redis

from contract.backend import circuit as module
from contract.backend import redis_client
from contract.backend.broker import make_app
from contract.backend.circuit import Circuit
from contract.backend.ledger import Ledger
from contract.backend.queues import Queues
from contract.backend.redis_client import RedisClient
from contract.backend.secret_url import SecretUrl
from contract.backend.wire import redis_address
from contract.errors import InvalidSettings, RedisUnavailable
from contract.settings import Settings
from tests.waiting import wait_until
from tests.wires import Wire, tap

AWAY = "Redis at 10.0.0.1:6379/0 cannot be reached"
CALLS = 30


def watches() -> int:
    return sum(thread.name == "redis circuit" for thread in threading.enumerate())


def test_calls_fail_at_once_until_redis_answers() -> None:
    # Given a Redis that does not answer, and then refuses a password,
    looks, back = [0], threading.Event()

    def look() -> None:
        looks[0] += 1
        if not back.is_set():
            raise RedisUnavailable("it is still away")
        raise InvalidSettings("Redis refuses the password in IMAGEMILL_REDIS_URL.")

    circuit = Circuit(look)
    circuit.check()
    # if several calls had no answer, I expect all others to fail as the first one did, and one thread to look,
    for _ in range(3):
        circuit.open(AWAY)
    assert watches() == 1
    wait_until(lambda: looks[0] >= 2, message="a second look")
    with pytest.raises(RedisUnavailable, match=AWAY):
        circuit.check()
    # until there is an answer, whatever it is;
    back.set()
    wait_until(lambda: not circuit.is_open, message="the answer to be seen")
    circuit.check()
    wait_until(lambda: not watches(), message="the thread to end")
    # and so again.
    circuit.open(AWAY)
    assert circuit.is_open
    circuit.close()
    wait_until(lambda: not watches(), message="the thread to end")


def test_a_look_whose_connection_is_closed_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[object] = []
    monkeypatch.setattr(threading, "excepthook", traces.append)
    looks, closed = threading.Event(), threading.Event()

    def look() -> None:
        looks.set()
        closed.wait()
        raise AttributeError("'NoneType' object has no attribute 'recv'")  # as redis-py does

    circuit = Circuit(look)
    circuit.open(AWAY)
    looks.wait()
    circuit.close()
    closed.set()
    wait_until(lambda: not watches(), message="the thread to end")
    assert not circuit.is_open and not traces


@contextmanager
def behind_a_wire(settings: Settings) -> Iterator[tuple[Wire, Settings]]:
    url = settings.redis_url.get_secret_value()
    port = redis_address(settings).port
    with tap(port) as wire:
        yield wire, settings.model_copy(update={"redis_url": SecretUrl(url.replace(f":{port}/", f":{wire.port}/"))})
        wire.flows.set()


def test_a_silent_redis_is_tried_twice_by_each_call_and_then_by_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_: RedisClient) -> None:
        raise RedisUnavailable("it is still away")

    monkeypatch.setattr(redis_client, "INTERACTIVE_SECONDS", 0.3)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(RedisClient, "_look", look)
    with (
        behind_a_wire(settings) as (wire, there),
        closing(Ledger(there, interactive=True)) as ledger,
        closing(Queues(there, ledger.circuit)) as queues,
    ):
        # Given a network that swallows packets, if many calls are made at once,
        wire.flows.clear()
        with ThreadPoolExecutor(CALLS) as pool:
            found = [call.exception() for call in [pool.submit(ledger.info) for _ in range(CALLS)]]
        # I expect each to fail, after two tries at most, and later ones and messages to fail without any.
        assert {type(one) for one in found} == {RedisUnavailable}
        tries = wire.connections
        assert 2 <= tries <= 2 * CALLS
        for call in (ledger.info, ledger.workers, lambda: ledger.once_in(1, "a"), lambda: queues.plan("a-job")):
            with pytest.raises(RedisUnavailable, match=f"^{found[0]}$"):
                call()
        with pytest.raises(RedisUnavailable), ledger.pipeline():
            pytest.fail("nothing is read")
        assert wire.connections == tries


def test_a_redis_that_answers_again_is_found_though_nobody_asks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "INTERACTIVE_SECONDS", 0.3)
    with behind_a_wire(settings) as (wire, there), closing(Ledger(there, interactive=True)) as ledger:
        circuit = ledger.circuit
        assert circuit is not None
        wire.flows.clear()
        with pytest.raises(RedisUnavailable, match=rf"^Redis at 127\.0\.0\.1:{wire.port}/0 does not answer; find out"):
            ledger.info()
        assert circuit.is_open
        wire.flows.set()
        wait_until(lambda: not circuit.is_open, message="Redis to be found")


def test_a_connection_that_ended_without_a_word_fails_no_call(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "INTERACTIVE_SECONDS", 6.0)
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(Ledger(settings, interactive=True)) as ledger:
        # Given a connection behind which nobody is any more, if a call is made, I expect an answer over another one.
        before = ledger.redis.client_id()
        pool: Any = ledger.redis.connection_pool
        (connection,) = pool._connections
        os.dup2(ours.fileno(), connection._sock.fileno())
        assert ledger.workers() == []
        assert ledger.redis.client_id() != before
        assert ledger.circuit is not None and not ledger.circuit.is_open


def test_a_worker_asks_a_silent_redis_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "_SILENT_SECONDS", 0.3)
    with behind_a_wire(settings) as (wire, there), closing(Ledger(there)) as ledger:
        wire.flows.clear()
        for _ in range(2):
            before = wire.connections
            with pytest.raises(RedisUnavailable):
                ledger.info()
            assert wire.connections > before + 2


def test_a_redis_that_takes_no_writes_is_read(settings: Settings) -> None:
    with (
        closing(Ledger(settings, patience=0.1, interactive=True)) as ledger,
        closing(Redis.from_url(settings.redis_url.get_secret_value())) as other,
    ):
        other.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(RedisUnavailable, match="is a read-only replica"):
                ledger.once_in(1, "a")
            assert ledger.workers() == []
        finally:
            other.replicaof("NO", "ONE")


def test_a_message_waits_for_redis_as_long_as_its_app_says(settings: Settings) -> None:
    with behind_a_wire(settings) as (wire, there), closing(make_app(there, silent_seconds=0.3)) as app:
        wire.flows.clear()
        with pytest.raises(RedisUnavailable, match="Redis did not accept the message"):
            Queues(app).plan("a-job")
