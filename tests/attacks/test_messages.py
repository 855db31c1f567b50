"""Messages that no Imagemill has sent: they end no process, are counted, and hold nothing up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from contract.backend.broker import make_app
from contract.backend.queues import Queues
from contract.keys.queues import QUEUE_CONTROL
from contract.keys.redis import RedisKeys
from producer.doctor import check_messages
from tests.mill import Mill
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """A controller and a clock, whose taken messages come back after a second."""
    with Mill(tmp_path_factory.mktemp("mill"), workers=0, visibility_timeout=1).running() as made:
        yield made


def keys(mill: Mill) -> RedisKeys:
    return RedisKeys(mill.settings.namespace)


def listened(mill: Mill) -> int:
    """Wait until the controller takes messages; return its process id."""
    redis = mill.client.backend.ledger.redis
    wait_until(lambda: redis.llen(f"{keys(mill).broker_prefix}{QUEUE_CONTROL}") == 0, 60, "the controller to listen")
    pid = mill.supervisor.pid("controller")
    assert pid is not None
    return pid


BYTES = [
    b"",
    b"no JSON",
    b"\xff\x00\xfe",
    b"[" * 5000,
    b"null",
    b"{}",
    b"[]",
    b'{"headers": 1, "properties": 2}',
    b"x" * 10**6,
]


def test_what_is_no_message_is_rejected_and_counted(mill: Mill) -> None:
    # Given a queue with bytes of any kind, and well-formed messages that Celery would trip over,
    pid, redis = listened(mill), mill.client.backend.ledger.redis
    queue = f"{keys(mill).broker_prefix}{QUEUE_CONTROL}"
    before = sum(mill.client.backend.ledger.rejected().values())
    redis.lpush(queue, *BYTES)
    unfit: list[dict[str, Any]] = [
        {"headers": None, "properties": {}},
        {"headers": {"task": "os.system", "id": "1"}, "properties": {"delivery_tag": "a", "delivery_info": {}}},
        {"headers": {"task": "imagemill.plan"}, "properties": {"delivery_tag": "b"}, "body": 7},
        {"headers": {}, "properties": {"delivery_tag": "c", "body_encoding": "rot13"}, "body": "x"},
        {"headers": {"__type__": "uuid", "__value__": "?"}, "properties": {"delivery_tag": "d"}},
    ]
    redis.lpush(queue, *[json.dumps(message) for message in unfit])

    # I expect each to be counted, and the same process to plan the next job.
    sent = len(BYTES) + len(unfit)
    wait_until(lambda: sum(mill.client.backend.ledger.rejected().values()) - before == sent, 30, "all to be rejected")
    assert mill.supervisor.pid("controller") == pid
    said = check_messages(mill.client.backend.ledger.rejected())
    assert not said.ok and "not JSON" in said.detail
    assert mill.log("controller").count("A message was rejected (not JSON)") == 1, "each kind is logged once"


def test_what_was_taken_and_is_damaged_is_removed(mill: Mill) -> None:
    # Given entries among the messages that workers have taken, which nobody can put back,
    pid, redis = listened(mill), mill.client.backend.ledger.redis
    prefix = keys(mill).broker_prefix
    entries: dict[Any, Any] = {
        "a": "no JSON",
        "b": "[1, 2]",
        "c": '["x", "", "control"]',
        "d": "null",
        "e": '[{}, "", "control"]',
    }
    redis.hset(f"{prefix}unacked", mapping=entries)
    redis.zadd(f"{prefix}unacked_index", dict.fromkeys(entries, 1.0))

    # I expect them to go,
    gone = lambda: not redis.hexists(f"{prefix}unacked", "a") and redis.zscore(f"{prefix}unacked_index", "d") is None  # noqa: E731
    wait_until(gone, 30, "the entries to be removed")
    assert mill.supervisor.pid("controller") == pid
    # and the reconciler, which reads them too, to go on.
    assert mill.client.backend.ledger.messages((QUEUE_CONTROL,), 0) is not None


def test_a_queue_of_another_type_is_removed(mill: Mill) -> None:
    pid, redis = listened(mill), mill.client.backend.ledger.redis
    queue = f"{keys(mill).broker_prefix}{QUEUE_CONTROL}"
    redis.set(queue, "a string")
    wait_until(lambda: redis.type(queue) != "string", 30, "the string to be removed")
    app = make_app(mill.settings)
    Queues(app).finalize("nobody")
    app.close()
    assert listened(mill) == pid
    assert "not a queue" in mill.client.backend.ledger.rejected()
