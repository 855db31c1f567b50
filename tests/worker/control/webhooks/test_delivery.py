"""One attempt: what is sent, what counts as delivered, and what is written when a step is the last one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import pytest

from contract.backend.objects import ObjectStore
from contract.keys.webhooks import WAITING_MESSAGES, webhook_message, webhook_record, webhook_secret, webhook_waiting
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from contract.web.webhooks.outbox import Event, Outbox, message_id
from tests.hooks import Receiver
from tests.sites import drip, send
from tests.worker.control.webhooks.conftest import POLICY
from worker.control.webhooks.delivery import Delivery
from worker.control.webhooks.post import Poster
from worker.control.webhooks.retries import DELAYS

NOW = 1_795_600_000.0
DEATH = RuntimeError("SIGKILL")


@pytest.fixture
def poster() -> Iterator[Poster]:
    """Has time for an answer, however long a busy machine lets this process stand still."""
    with closing(Poster(POLICY, seconds=60.0)) as made:
        yield made


@pytest.fixture
def now() -> list[float]:
    """The time, which a test may change."""
    return [NOW]


@pytest.fixture
def delivery(store: ObjectStore, poster: Poster, now: list[float]) -> Delivery:
    return Delivery(store, poster, clock=lambda: now[0])


@pytest.fixture
def name(store: ObjectStore, hook: Endpoint) -> str:
    """A message that waits."""
    event = Event("job.succeeded", "job/animals/0", int(NOW * 1000), {"job": "animals", "label": "Bär"})
    Outbox(store).add(event, hook.id, NOW)
    return event.name(hook.id)


def test_a_message_is_signed_and_delivered_once(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver, now: list[float]
) -> None:
    import time

    now[0] = time.time()  # the reference library refuses what is older than five minutes
    answer, waiting = delivery.attempt(hook.id, name)
    assert answer is not None
    assert answer.delivered
    assert waiting is None
    (post,) = receiver.posts
    (secret,) = Endpoints(store).secrets(hook.id)
    assert post.verified(secret)["data"] == {"job": "animals", "label": "Bär"}
    assert post.headers["content-type"] == "application/json"
    told = Outbox(store).told(hook.id, name)
    assert (told.state, told.attempts, told.id) == ("delivered", 1, post.id)

    # If it is attempted again, I expect nothing to be sent.
    assert delivery.attempt(hook.id, name) == (None, None)
    assert len(receiver.posts) == 1


def lies(request: BaseHTTPRequestHandler) -> None:
    """Promise a body, send a part of it, and close."""
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(b"thanks")
    request.close_connection = True


def junk(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    request.close_connection = True


def hangs_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


def to(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: send(request, status, b"", **headers)


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (to(500), "it answered 500"),
        (to(404), "it answered 404"),
        (to(302, Location="http://169.254.169.254/latest/"), "it answered 302, and redirects are not followed"),
        (to(503, **{"Retry-After": "Mon, 01 Jan 9999999999 00:00:00 GMT"}), "it answered 503"),
        (lies, "the answer was cut off (ProtocolError)"),
        (junk, "the answer was cut off (ProtocolError)"),
        (hangs_up, "the answer was cut off (ProtocolError)"),
    ],
)
def test_what_does_not_count_as_delivered_waits_for_its_next_attempt(
    delivery: Delivery,
    store: ObjectStore,
    hook: Endpoint,
    name: str,
    receiver: Receiver,
    behave: Callable[[BaseHTTPRequestHandler], None],
    said: str,
) -> None:
    receiver.behave = behave
    answer, waiting = delivery.attempt(hook.id, name)
    assert answer is not None
    assert answer.error == said
    assert waiting == Outbox(store).waiting(hook.id, name)
    assert waiting is not None
    assert waiting.attempts == 1
    assert NOW + 5 <= waiting.due <= NOW + 5.5

    # If it is not due yet, I expect nothing to be sent.
    assert delivery.attempt(hook.id, name) == (None, waiting)
    assert len(receiver.posts) == 1


def test_a_receiver_that_drips_is_cut_off(store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver) -> None:
    gone = threading.Event()
    receiver.behave = lambda request: drip(request, gone)
    with closing(Poster(POLICY, seconds=1.0)) as hasty:
        answer, waiting = Delivery(store, hasty, clock=lambda: NOW).attempt(hook.id, name)
    gone.set()
    assert answer is not None
    assert answer.error == "there was no answer within 1 s"
    assert answer.unwell
    assert waiting is not None


def test_a_body_without_an_end_is_read_to_a_bound(
    delivery: Delivery, hook: Endpoint, name: str, receiver: Receiver
) -> None:
    written = [0]

    def flood(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                written[0] += request.wfile.write(b"x" * 2**14)
        except OSError:
            request.close_connection = True

    receiver.behave = flood
    answer, _ = delivery.attempt(hook.id, name)
    assert answer is not None
    assert answer.delivered
    assert written[0] < 2**25  # buffers of the kernel, not what a second can carry


def test_after_its_attempts_a_message_is_given_up_and_can_be_sent_again(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver, now: list[float]
) -> None:
    outbox, receiver.behave = Outbox(store), to(503, Retry_After="1")
    for _ in range(len(DELAYS) + 1):
        delivery.attempt(hook.id, name)
        now[0] += 100_000
    told = outbox.told(hook.id, name)
    assert (told.state, told.attempts, len(receiver.posts)) == ("failed", 10, 10)
    assert len(set(receiver.ids)) == 1

    receiver.behave = to(200)
    outbox.resend(hook.id, told.id, now[0])
    delivery.attempt(hook.id, name)
    assert outbox.told(hook.id, name).state == "delivered"
    assert len(set(receiver.ids)) == 1


def test_410_disables_a_webhook_until_it_is_enabled(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver
) -> None:
    endpoints, outbox = Endpoints(store), Outbox(store)
    second = Event("job.failed", "job/birds/0", int(NOW * 1000), {})
    outbox.add(second, hook.id, NOW)
    receiver.behave = to(410)
    delivery.attempt(hook.id, name)
    delivery.attempt(hook.id, second.name(hook.id))
    assert len(receiver.posts) == 1
    assert [one.state for one in outbox.messages(hook.id, limit=9)] == ["failed", "failed"]
    assert endpoints.disabled(hook.id) is not None

    # Once it is enabled, and well, I expect what it missed to arrive when it is sent again.
    receiver.behave = to(204)
    endpoints.enable(hook.id)
    for one in outbox.messages(hook.id, limit=9):
        outbox.resend(hook.id, one.id, NOW)
    for missed in (name, second.name(hook.id)):
        delivery.attempt(hook.id, missed)
    assert [one.state for one in outbox.messages(hook.id, limit=9)] == ["delivered", "delivered"]


def test_an_early_attempt_that_fails_changes_nothing_but_the_last_one(
    delivery: Delivery, hook: Endpoint, name: str, receiver: Receiver, now: list[float]
) -> None:
    receiver.behave = to(500)
    _, first = delivery.attempt(hook.id, name)
    now[0] += 1
    _, second = delivery.attempt(hook.id, name, early=True)
    assert first is not None
    assert second is not None
    assert (second.attempts, second.due) == (first.attempts, first.due)
    assert second.last != first.last


def test_a_death_between_the_request_and_its_record_sends_it_again_with_the_same_id(
    delivery: Delivery,
    store: ObjectStore,
    hook: Endpoint,
    name: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a controller that dies before it has written that a message was delivered,
    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "finish", _dies)
        with pytest.raises(RuntimeError):
            delivery.attempt(hook.id, name)
    # if another delivers, I expect the message again, with its id and its bytes.
    delivery.attempt(hook.id, name)
    first, second = receiver.posts
    assert first.id == second.id
    assert first.body == second.body
    assert Outbox(store).told(hook.id, name).state == "delivered"


def test_a_death_between_the_record_and_the_last_step_sends_nothing_again(
    delivery: Delivery,
    store: ObjectStore,
    hook: Endpoint,
    name: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "delete", _dies)
        with pytest.raises(RuntimeError):
            delivery.attempt(hook.id, name)
    assert Outbox(store).waiting(hook.id, name) is not None
    assert delivery.attempt(hook.id, name) == (None, None)
    assert len(receiver.posts) == 1
    assert Outbox(store).waiting(hook.id, name) is None


def _dies(*_: object, **__: object) -> None:
    raise DEATH


def test_a_message_whose_record_is_gone_waits_no_more(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver
) -> None:
    store.delete(webhook_message(hook.id, name))
    assert delivery.attempt(hook.id, name) == (None, None)
    assert receiver.posts == []
    outcome = Outbox(store).outcome(hook.id, name)
    assert outcome is not None
    assert json.loads(outcome.to_json())["last"]["error"] == "its record is gone"


def test_a_message_to_a_webhook_that_was_removed_is_deleted(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver
) -> None:
    Endpoints(store).remove(hook.id)
    assert delivery.attempt(hook.id, name) == (None, None)
    assert receiver.posts == []
    assert list(Outbox(store).old(NOW)) == []


def test_a_message_to_a_webhook_whose_record_cannot_be_read_can_be_sent_again(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver
) -> None:
    # Given the record of a newer version, I expect its message to be given up and kept.
    record = store.get(webhook_record(hook.id))
    store.put(webhook_record(hook.id), b"{}")
    assert delivery.attempt(hook.id, name) == (None, None)
    store.put(webhook_record(hook.id), record)
    Outbox(store).resend(hook.id, message_id(name), NOW)
    delivery.attempt(hook.id, name)
    assert len(receiver.posts) == 1


def test_a_process_that_ends_records_no_failure(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver, poster: Poster
) -> None:
    def ends(request: BaseHTTPRequestHandler) -> None:
        poster.close()
        request.close_connection = True

    receiver.behave = ends
    _, waiting = delivery.attempt(hook.id, name)
    assert waiting is not None
    assert waiting.attempts == 0
    assert Outbox(store).waiting(hook.id, name) == waiting


@pytest.mark.parametrize(
    "there",
    [
        b"x",
        b'{"due": 1e999}',
        b'{"due": 1, "attempts": -100}',
        b'{"due": 1, "last": {"at": "x"}}',
        b'{"due": 1e12}',
    ],
)
def test_a_damaged_record_of_waiting_is_written_anew(
    there: bytes, delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver
) -> None:
    # Given what a producer wrote over a message, and for one that there never was,
    for key in (name, "0000000000000-" + "0" * 24):
        store.put(webhook_waiting(hook.id, key), there)
        assert (waiting := Outbox(store).waiting(hook.id, key)) is not None and waiting.due == 0.0
    # I expect the message to be delivered, and neither to wait any more.
    delivery.attempt(hook.id, "0000000000000-" + "0" * 24)
    delivery.attempt(hook.id, name)
    assert len(receiver.posts) == 1
    assert list(store.list(WAITING_MESSAGES)) == []


def test_a_damaged_secret_fails_the_attempt_and_can_be_rotated(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, name: str, receiver: Receiver, now: list[float]
) -> None:
    for damaged in (b'{"secrets": [{"secret": "whsec_abc"}]}', b"x"):
        store.put(webhook_secret(hook.id), damaged)
        answer, _ = delivery.attempt(hook.id, name)
        assert answer is not None and "rotate" in str(answer.error)
        now[0] += 86_400
    Endpoints(store).rotate(hook.id)
    delivered, _ = delivery.attempt(hook.id, name)
    assert delivered is not None and delivered.delivered and len(receiver.posts) == 1


def test_no_connection_is_used_twice(
    delivery: Delivery, store: ObjectStore, hook: Endpoint, receiver: Receiver
) -> None:
    def stays(request: BaseHTTPRequestHandler) -> None:
        ports.append(request.client_address[1])
        send(request, 200, b"ok")
        request.close_connection = False

    ports: list[int] = []
    receiver.behave = stays
    for n in range(3):
        event = Event("job.succeeded", f"job/j{n}/0", int(NOW * 1000), {})
        Outbox(store).add(event, hook.id, NOW)
        delivery.attempt(hook.id, event.name(hook.id))
    assert len(set(ports)) == 3
