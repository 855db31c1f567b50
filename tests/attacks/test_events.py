"""Events come from whoever reaches the controller's port: without the token nothing happens, with it nothing bad."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any
from urllib.error import HTTPError

import pytest
from pydantic import SecretStr

from contract import settings
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, RedisUnavailable
from contract.jobs.lifecycle import Backend
from contract.jobs.templates import Template
from contract.keys.watches import REJECTED_EVENTS, rejected_event
from contract.settings import Settings
from contract.telemetry.routes import Routes, text
from contract.telemetry.server import Server
from contract.watches.hints import Hints
from contract.watches.record import Watch
from tests.contract.telemetry.test_server import ANY_PORT, ask
from worker.control.watching import events as module
from worker.control.watching.events import LIMIT, PATH, EventsInbox
from worker.control.watching.keeper import Keeper
from worker.control.watching.tables import Tables

TOKEN = "a-token-of-some-length"
Address = tuple[str, int]


def watch(name: str, source: str, *, paused: bool = False) -> Watch:
    return Watch(
        name=name,
        source=source,
        every=5,
        paused=paused,
        created_at="2026-11-26T08:30:12.345Z",
        template=Template(spec={"kind": "classify", "model": "lite0"}),
    )


WATCHES = [
    watch("camera", "s3://photos/in/"),
    watch("all", "s3://photos/"),
    watch("still", "s3://photos/in/", paused=True),
    watch("other", "s3://others/"),
]


class Heard(Hints):
    """Hints that are noted too, and a Redis that may be away."""

    away = False

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.told: list[dict[str, list[str]]] = []

    def tell(self, found: Any) -> None:
        if self.away:
            raise RedisUnavailable("Redis is out of memory; raise `maxmemory` and try again.")
        self.told.append(dict(found))
        super().tell(found)


@pytest.fixture
def hints(ledger: Ledger) -> Heard:
    return Heard(ledger)


def served(settings: Settings, store: ObjectStore, hints: Hints) -> Iterator[Address]:
    routes = Routes()
    routes.add("/livez", lambda: text(200, "ok"))
    routes.add_inbox(PATH, EventsInbox(settings, store, hints, lambda: WATCHES).inbox)
    server = Server(routes, "127.0.0.1", ANY_PORT)
    host, _, port = server.open().rpartition(":")
    yield host, int(port)
    server.close()


@pytest.fixture
def address(settings: Settings, store: ObjectStore, hints: Heard) -> Iterator[Address]:
    yield from served(settings.model_copy(update={"events_token": SecretStr(TOKEN)}), store, hints)


def post(
    address: Address, body: bytes, authorization: str | None = f"Bearer {TOKEN}", path: str = PATH
) -> tuple[int, str]:
    """The status, and the sentence of an error."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    request = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            told = error.read()
            return error.code, json.loads(told)["error"] if told.startswith(b"{") else told.decode()


def event(*keys: str, bucket: str = "photos") -> bytes:
    records = [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}} for key in keys]
    return json.dumps({"Records": records}).encode()


def rejected(store: ObjectStore) -> list[dict[str, Any]]:
    return [json.loads(store.get(entry.key)) for entry in store.list(REJECTED_EVENTS)]


def test_an_event_is_answered_when_redis_has_it(address: Address, hints: Heard) -> None:
    # Given watches of a prefix and of a whole bucket, if an object below both is announced
    assert post(address, event("in/a+b.jpg", "elsewhere.jpg")) == (204, "")
    # I expect each to find its keys, and a paused one none
    assert hints.take("camera") == ["in/a b.jpg"]
    assert hints.take("all") == ["in/a b.jpg", "elsewhere.jpg"]
    assert hints.take("still") == hints.take("other") == []


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"),
        *(f"Bearer {TOKEN.upper()}", "Bearer \xff\xfe", "Bearer " + "x" * 10_000, f"Bearer {TOKEN} {TOKEN}"),
    ],
)
def test_without_the_token_nothing_is_taken(
    address: Address, hints: Heard, store: ObjectStore, authorization: str | None
) -> None:
    for body in (event("in/a.jpg"), b"no event"):
        status, said = post(address, body, authorization)
        assert status == 401 and TOKEN not in said
    assert hints.told == [] and rejected(store) == []


def test_without_a_token_in_the_settings_nobody_may_post(settings: Settings, store: ObjectStore, hints: Heard) -> None:
    for address in served(settings, store, hints):
        for authorization in (None, "Bearer ", "Bearer", f"Bearer {TOKEN}"):
            status, said = post(address, event("in/a.jpg"), authorization)
            assert status == 403 and "IMAGEMILL_EVENTS_TOKEN" in said
    assert hints.told == []


@pytest.mark.parametrize("token", ["short", "x" * 15, "with a space in it", "line\nfeed-in-the-token", "ü" * 20])
def test_a_token_that_is_none_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(InvalidSettings, match="IMAGEMILL_EVENTS_TOKEN") as caught:
        settings.load(events_token=token)
    assert token not in str(caught.value)


def test_a_huge_body_is_refused_before_it_is_read(address: Address, hints: Heard) -> None:
    # Given a client that says that it sends 10 GB, and one that sends a little more than may be
    head = f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: "
    began = time.monotonic()
    assert b"413" in ask(address, f"{head}10000000000\r\n\r\nxxx".encode()).partition(b"\r\n")[0]
    assert time.monotonic() - began < 9, "the server waited for the body"
    assert post(address, b"x" * (LIMIT + 1))[0] == 413
    # and a stranger who sends megabytes: I expect an answer, not a connection that breaks
    assert post(address, b"x" * 2**23, "Bearer wrong")[0] == 401
    assert hints.told == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("", b"411"),
        ("Transfer-Encoding: chunked\r\n", b"411"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"411"),
        ("Content-Length: -1\r\n", b"400"),
        ("Content-Length: 0x10\r\n", b"400"),
        ("Content-Length: ٣\r\n", b"400"),
        ("Content-Length: 99999999999999999999\r\n", b"400"),
    ],
)
def test_a_body_without_its_length_is_refused(address: Address, lines: str, status: bytes) -> None:
    request = f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n{lines}\r\n{{}}"
    assert status in ask(address, request.encode()).partition(b"\r\n")[0]


def test_a_body_that_ends_early_is_no_event(address: Address, hints: Heard) -> None:
    # Given a client that goes away in the middle of its body
    whole = event("in/a.jpg")
    head = f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(whole) + 10}\r\n\r\n"
    with closing(socket.create_connection(address)) as wire:
        wire.sendall(head.encode() + whole)
        wire.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            assert wire.recv(100) == b""
    # I expect nothing to come of it, and others to be served
    assert hints.told == []
    assert post(address, whole)[0] == 204


@pytest.mark.parametrize(
    "body", [b"[" * 500_000, b'{"a":' * 200_000, b"\x00" * 1000, b"", b'"\xff"', b"{}", b"1" * 5000]
)
def test_a_body_that_is_no_event_is_kept_for_a_look(address: Address, store: ObjectStore, body: bytes) -> None:
    status, said = post(address, body)
    assert status == 400 and said.isprintable()
    (record,) = rejected(store)
    assert record["reason"] == said and record["bytes"] == len(body) and len(record["body"]) <= 2**16


def test_keys_made_to_harm_lead_nowhere(
    address: Address, hints: Heard, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 3600.0)
    # Given keys that climb, end a line, or steer a terminal
    for key in ("in/../../secret.jpg", "in/%2e%2e/x.jpg", "in/a%0Ab.jpg", "in/%1b[2J.jpg", "in/%00.jpg", "x" * 3000):
        status, said = post(address, event(key))
        assert status == 400 and said.isprintable()
    # and buckets that nobody watches, which are no error of the sender
    assert post(address, event("in/a.jpg", bucket="strangers"))[0] == 204
    assert hints.told == [{}]
    assert len(rejected(store)) == 1, "the others come too soon after the first one to be kept"


def test_rejected_events_do_not_fill_the_bucket(settings: Settings, store: ObjectStore, hints: Heard) -> None:
    # Given a hundred rejected events in the bucket
    for number in range(100):
        store.put(rejected_event(f"20261126t08{number:04d}000000", f"{number:064x}"), b"{}")
    inbox = EventsInbox(settings, store, hints, lambda: WATCHES)
    # I expect each new one to take the place of the oldest
    assert inbox.take(b"no event").status == 400
    there = [entry.key for entry in store.list(REJECTED_EVENTS)]
    assert len(there) == 100
    assert rejected_event("20261126t080000000000", "0" * 64) not in there


def test_an_event_that_comes_before_the_watches_were_read_is_not_answered_as_taken(
    settings: Settings, store: ObjectStore, hints: Heard, backend: Backend
) -> None:
    # Given a controller whose keeper has not looked yet,
    own = settings.model_copy(update={"events_token": SecretStr(TOKEN)})
    keeper = Keeper(backend, own, hints, [Tables(store, own)])
    inbox = EventsInbox(own, store, hints, keeper.watches)
    # if an event comes, I expect the sender to be told to send it again,
    assert inbox.take(event("in/a.jpg")).status == 503
    assert hints.told == []
    # and to be heard once it has.
    keeper.name = "controller"
    keeper.look()
    assert inbox.take(event("in/a.jpg")).status == 204


def test_a_redis_without_room_is_the_fault_of_nobody_who_posts(address: Address, hints: Heard) -> None:
    hints.away = True
    status, said = post(address, event("in/a.jpg"))
    assert status == 503 and "maxmemory" in said
    hints.away = False
    assert post(address, event("in/a.jpg"))[0] == 204
    assert hints.take("camera") == ["in/a.jpg"]


def test_only_events_are_posted_and_only_pages_are_got(address: Address) -> None:
    head = ask(address, f"GET {PATH} HTTP/1.1\r\n\r\n".encode()).partition(b"\r\n")[0]
    assert b"404" in head or b"405" in head
    for path in ("/livez", "/", "/v1/events/", "/v1/events/../events", "/v1%2fevents"):
        assert post(address, event("in/a.jpg"), path=path)[0] == 405
    assert b"405" in ask(address, f"DELETE {PATH} HTTP/1.1\r\n\r\n".encode()).partition(b"\r\n")[0]


def test_a_sender_that_is_slow_does_not_keep_others_out(address: Address) -> None:
    # Given forty senders that have said that a body comes
    head = f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n".encode()
    wires = [socket.create_connection(address) for _ in range(40)]
    try:
        for wire in wires:
            with suppress(OSError):
                wire.sendall(head)
        # I expect a probe, and an event, to be answered
        assert b"200" in ask(address, b"GET /livez HTTP/1.1\r\n\r\n").partition(b"\r\n")[0]
        assert post(address, event("in/a.jpg"))[0] == 204
    finally:
        for wire in wires:
            wire.close()
