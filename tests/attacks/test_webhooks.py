"""What a webhook may make a controller reach or print: nothing inside, and no URL that is a password."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput
from contract.keys.bucket import WEBHOOKS
from contract.keys.webhooks import parse_webhook
from contract.settings import Settings
from contract.web.addresses import AddressPolicy
from contract.web.webhooks import signing
from contract.web.webhooks.endpoints import Endpoint, Endpoints, check_url
from contract.web.webhooks.outbox import Event, Outbox
from producer.jobs.webhooks import overview
from tests.attacks.vectors import vectors
from tests.hooks import Receiver
from tests.sites import LOOPBACK, Canary, send
from worker.control.webhooks.delivery import Delivery
from worker.control.webhooks.post import Poster

ANY_PORT = "1-65535"
NOW = 1_795_600_000.0
PASSWORD = "xyzzy-T0-B0"


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary().listening(LOOPBACK, "::1") as made:
        yield made


def to_loopback(host: str, port: int) -> Sequence[str]:
    return [LOOPBACK]


def post(policy: AddressPolicy, url: str) -> str:
    """What is told of a request that fails."""
    with closing(Poster(policy, seconds=60)) as poster:
        answer = poster.post(url, signing.headers([signing.new_secret()], "msg_1", int(NOW), b"{}"), b"{}")
    assert not answer.delivered
    return answer.error or ""


def test_no_notation_of_an_inner_address_is_taken_or_reached(canary: Canary) -> None:
    # Given a service on this machine, and controllers to which every port is open,
    policy, urls = AddressPolicy(ports=ANY_PORT, resolver=to_loopback), list(vectors(canary.port))
    for url in urls:
        # if it is named as a webhook, I expect one sentence; if it is in a record all the same, no connection.
        with pytest.raises(InvalidInput) as caught:
            check_url(url, policy)
        assert "\n" not in str(caught.value)
        post(policy, url)
    assert len(urls) >= 50
    assert canary.connections == 0


def test_a_redirect_leads_nowhere(canary: Canary) -> None:
    targets = ["http://169.254.169.254/latest/meta-data/", f"http://{LOOPBACK}:{canary.port}/", "//[::1]/", "/other"]
    with Receiver().listening() as receiver:
        policy = AddressPolicy("public.test", ANY_PORT, to_loopback)
        for status in (301, 302, 303, 307, 308):
            for target in targets:
                receiver.behave = lambda request, s=status, t=target: send(request, s, Location=t)  # type: ignore[misc]
                said = post(policy, f"http://public.test:{receiver.port}/hook")
                assert said == f"it answered {status}, and redirects are not followed"
        assert len(receiver.posts) == 20
        assert {one.path for one in receiver.posts} == {"/hook"}
    assert canary.connections == 0


def test_a_name_that_is_bound_anew_reaches_nothing_inside(canary: Canary) -> None:
    # Given a name that was public when the webhook was named, and is this machine at the delivery,
    asked: list[str] = []

    def rebind(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["8.8.8.8"] if len(asked) == 1 else [LOOPBACK]

    policy = AddressPolicy(ports=ANY_PORT, resolver=rebind)
    url = f"http://rebind.test:{canary.port}/hook"
    check_url(url, policy)
    assert post(policy, url) == "the address may not be reached"
    assert canary.connections == 0


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x00", "%0d%0a"])
def test_a_url_puts_no_header_into_a_request(end: str) -> None:
    with Receiver().listening() as receiver:
        policy = AddressPolicy(LOOPBACK, ANY_PORT)
        with closing(Poster(policy, seconds=60)) as poster:
            url = receiver.url(f"/hook?a=1{end}X-Injected: 1")
            poster.post(url, signing.headers([signing.new_secret()], "msg_1", int(NOW), b"{}"), b"{}")
        assert all("x-injected" not in one.headers for one in receiver.posts)


@pytest.fixture
def hook(store: ObjectStore) -> Endpoint:
    policy = AddressPolicy("hooks.test", ANY_PORT, to_loopback)
    return Endpoints(store).register(f"http://hooks.test:9/services/{PASSWORD}?token={PASSWORD}", "ann", policy)


def test_a_url_that_is_a_password_is_printed_nowhere(
    store: ObjectStore, hook: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a webhook whose path is a password, and whose receiver is down, refused, gone or without an address,
    caplog.set_level(logging.DEBUG)
    outbox = Outbox(store)

    def none(host: str, port: int) -> Sequence[str]:
        return []

    for n, policy in enumerate(
        [
            AddressPolicy("hooks.test", ANY_PORT, to_loopback),
            AddressPolicy(ports=ANY_PORT, resolver=to_loopback),
            AddressPolicy(resolver=to_loopback),
            AddressPolicy("hooks.test", ANY_PORT, none),
        ]
    ):
        event = Event("job.failed", f"job/j{n}/0", int(NOW * 1000) + n, {})
        outbox.add(event, hook.id, NOW)
        with closing(Poster(policy, seconds=2)) as poster:
            Delivery(store, poster, delays=(), clock=time.time).attempt(hook.id, event.name(hook.id))
    # if I look at everything that is written or printed about it, but for its record, I expect the password nowhere.
    said = [caplog.text, repr(hook), overview(store, hook).model_dump_json()]
    said += [one.model_dump_json() for one in outbox.messages(hook.id, limit=9)]
    for entry in store.list(WEBHOOKS):
        if parse_webhook(entry.key) is None:
            said.append(entry.key + store.get(entry.key).decode())
    assert len(said) >= 10
    assert not [text for text in said if PASSWORD in text]


def test_a_setting_with_the_url_of_all_prints_nothing() -> None:
    settings = Settings(webhook_url=f"https://hooks.test/{PASSWORD}")
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in str(settings)
    assert PASSWORD not in settings.model_dump_json()


def test_a_flood_of_headers_ends_with_the_request() -> None:
    def flood(request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                request.wfile.write(b"X: " + b"y" * 60_000 + b"\r\n")
        except OSError:
            request.close_connection = True

    with Receiver(flood).listening() as receiver:
        assert "the answer was cut off" in post(AddressPolicy(LOOPBACK, ANY_PORT), receiver.url())
