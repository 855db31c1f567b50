"""What may lie in a queue: everything that Imagemill sends, and nothing else."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from typing import Any

import pytest
from celery.beat import ScheduleEntry, Scheduler

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.messages import MESSAGE_BYTES, MalformedMessageError, arguments, check, taken
from contract.backend.queues import Queues
from contract.keys.queues import QUEUES, TASK_RUN
from contract.keys.redis import RedisKeys
from contract.settings import Settings


@pytest.fixture
def sent(settings: Settings, ledger: Ledger) -> dict[str, list[bytes]]:
    """What all senders put into the queues, the clock included."""
    app = make_app(settings)
    queues = Queues(app)
    queues.plan("a-job")
    queues.finalize("a-job")
    ledger.send_tickets("classify", 2)
    ledger.send_tickets("train")
    queues.finish("a-job")
    queues.check("birds", 3)
    entry = ScheduleEntry(name="tick", app=app, **app.conf.beat_schedule["tick"])
    Scheduler(app, lazy=True).apply_async(entry)
    prefix = RedisKeys(settings.namespace).broker_prefix
    found = {queue: ledger.redis.lrange(f"{prefix}{queue}", 0, -1) for queue in QUEUES}
    return {queue: [str(raw).encode() for raw in raws] for queue, raws in found.items()}


def test_what_is_sent_is_well_formed(sent: dict[str, list[bytes]]) -> None:
    told = {queue: sorted(check(queue, raw) for raw in raws) for queue, raws in sent.items()}
    assert told == {
        "control": [(), ("a-job",), ("a-job",)],
        "classify": [(), ()],
        "train": [()],
        "generate": [("a-job",)],
        "check": [("birds", 3)],
    }
    for raw in sent["classify"]:
        # As kombu keeps it while a worker has it.
        assert taken(json.dumps([json.loads(raw), "", "classify"])) == arguments(raw)


def test_a_ticket_is_what_celery_would_send(sent: dict[str, list[bytes]], settings: Settings, ledger: Ledger) -> None:
    # Given a ticket, and the same task as Celery sends it,
    ledger.redis.delete(f"{RedisKeys(settings.namespace).broker_prefix}classify")
    with closing(make_app(settings)) as app:
        app.send_task(TASK_RUN, queue="classify", ignore_result=True)
    (theirs,) = ledger.redis.lrange(f"{RedisKeys(settings.namespace).broker_prefix}classify", 0, -1)

    # I expect them to say the same, but for ids and who sent them.
    def said(raw: str | bytes) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(raw)
        for id in ("id", "root_id", "origin"):
            assert message["headers"].pop(id)
        assert message["properties"].pop("correlation_id")
        assert message["properties"].pop("delivery_tag")
        del message["properties"]["reply_to"]
        message["body"] = json.loads(base64.b64decode(message["body"]))
        return message

    assert said(sent["classify"][0]) == said(theirs)


def test_what_came_back_is_well_formed(sent: dict[str, list[bytes]]) -> None:
    message = json.loads(sent["classify"][0])
    message["headers"]["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True
    assert check("classify", json.dumps(message).encode()) == ()


def changed(raw: bytes, *path: str, to: Any) -> bytes:
    message = json.loads(raw)
    inner = message
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return json.dumps(message).encode()


@pytest.mark.parametrize(
    ("path", "to", "kind"),
    [
        (("body",), "%%%", "body"),
        (("body",), "W10=", "body"),
        (("body",), "W1tbIi4uLy4uL3giLCAwXSwge30sIHt9XQ==", "body"),
        (("body",), None, "body"),
        (("content-type",), "application/x-python-serialize", "content type"),
        (("content-encoding",), "utf-7", "content type"),
        (("headers",), None, "headers"),
        (("headers", "task"), "os.system", "unknown task"),
        (("headers", "task"), ["imagemill.run"], "unknown task"),
        (("headers", "compression"), "gzip", "headers"),
        (("headers", "eta"), "2099-01-01T00:00:00", "headers"),
        (("headers", "expires"), "soon", "headers"),
        (("headers", "retries"), "many", "headers"),
        (("headers", "stamped_headers"), True, "headers"),
        (("headers", "stamped_headers"), 7, "headers"),
        (("headers", "stamps"), "x", "headers"),
        (("headers", "timelimit"), [1, "x"], "headers"),
        (("headers", "origin"), {"__type__": "datetime", "__value__": "x"}, "headers"),
        (("properties",), [], "properties"),
        (("properties", "priority"), 1e400, "priority"),
        (("properties", "priority"), "high", "priority"),
        (("properties", "delivery_tag"), None, "properties"),
        (("properties", "body_encoding"), "rot13", "properties"),
        (("properties", "delivery_info"), {"exchange": "x", "routing_key": "classify"}, "delivery"),
        (("more",), 1, "envelope"),
    ],
)
def test_a_changed_message_is_malformed(
    sent: dict[str, list[bytes]], path: tuple[str, ...], to: Any, kind: str
) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        check("classify", changed(sent["classify"][0], *path, to=to))
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"null", "envelope"),
        (b"[1, 2]", "envelope"),
        (b'{"headers": {}, "properties": {}}', "properties"),
        (b" " * (MESSAGE_BYTES + 1), "too large"),
        (b"9" * 60_000, "not JSON"),
    ],
)
def test_bytes_of_any_kind_are_malformed(raw: bytes, kind: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        check("classify", raw)
    assert caught.value.kind == kind
    assert arguments(raw) is None
    assert taken(raw) is None
