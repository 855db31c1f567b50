"""What an attacker sends to the HTTP API: frames with two meanings, bodies without end, the names of others."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from contract.web.tokens import new_token
from producer.web import guard, protocol
from producer.web.online import held
from tests.serving import Api, serving
from tests.waiting import wait_until


@pytest.fixture
def api(settings: Settings, store: ObjectStore) -> Iterator[Api]:
    with serving(settings, store) as made:
        yield made


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def request(api: Api, *lines: str, body: bytes = b"", target: str = "POST /v1/token") -> bytes:
    head = [f"{target} HTTP/1.1", f"Host: {httpx2.URL(api.url).netloc.decode()}", *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: xchunked"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5, 6"],
        ["Content-Length: +5"],
        ["Content-Length: -1"],
        ["Content-Length: 0x5"],
        ["Content-Length : 5"],
        ["Content-Length: 5\x00"],
    ],
)
def test_a_frame_that_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_answered(
    api: Api, lines: list[str]
) -> None:
    # Given a request whose body is a second request, for whoever reads the first as shorter,
    hidden = request(api, target="GET /livez")
    bearer = f"Authorization: Bearer {api.token('admin')}"
    # if I send it, I expect one answer, a refusal, and the end of the connection.
    found = api.raw(request(api, bearer, *lines, body=b"0\r\n\r\n" + hidden))
    assert found.count(b"HTTP/1.1 ") == 1, found
    assert status(found) in (400, 405, 501), found
    assert b"\r\nok\n" not in found


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "localhost@evil", "127.0.0.1:x", "[:"])
def test_a_page_that_was_led_here_by_dns_is_refused(api: Api, host: str) -> None:
    lines = (
        f"GET /v1/token HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api.token()}\r\nConnection: close\r\n\r\n"
    )
    assert status(api.raw(lines.encode())) in (400, 421)


def test_two_hosts_are_refused(api: Api) -> None:
    host = httpx2.URL(api.url).netloc.decode()
    lines = f"GET /v1/token HTTP/1.1\r\nHost: {host}\r\nHost: evil\r\nConnection: close\r\n\r\n"
    assert status(api.raw(lines.encode())) == 400


def test_a_browser_of_another_origin_gets_nothing(api: Api) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx2.request("OPTIONS", f"{api.url}/v1/token", headers=headers)
    assert answer.status_code in (401, 405)
    with api.client() as client:
        answer = client.get("/v1/token", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert "set-cookie" not in answer.headers and "server" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-store"


def test_a_stranger_is_refused_before_a_body_is_read(api: Api) -> None:
    lines = ["Content-Length: 1000000000", f"Authorization: Bearer {new_token()}", "Connection: close"]
    began = time.monotonic()
    assert status(api.raw(request(api, *lines), seconds=20)) == 401
    assert time.monotonic() - began < 15


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(api: Api) -> None:
    bearer = f"Authorization: Bearer {api.token('admin')}"
    said = api.raw(request(api, bearer, f"Content-Length: {2 * guard.BODY_BYTES}", target="POST /v1/jobs"))
    assert status(said) == 413, said
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    lines = [bearer, "Content-Type: application/json", "Transfer-Encoding: chunked"]
    unsaid = api.raw(request(api, *lines, target="POST /v1/jobs"), chunk * 20)
    assert status(unsaid) in (413, 0), unsaid  # the answer may be lost where the client still sends


def test_a_bomb_is_not_unpacked(api: Api) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    with api.client("admin") as client:
        answer = client.post(
            "/v1/jobs", content=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
        )
    assert answer.status_code == 415


def test_a_head_and_a_body_that_never_end_are_ended(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given short limits,
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)
    bearer = f"Authorization: Bearer {api.token('admin')}"
    # if I stop in a head, or in a body, I expect the end of the connection long before I give up.
    with monkeypatch.context() as patched:
        patched.setattr(protocol, "HEAD_SECONDS", 0.5)
        assert api.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ", seconds=60) == b""
        assert api.raw(b"", seconds=60) == b""
    lines = [bearer, "Content-Type: application/json", "Content-Length: 100"]
    assert status(api.raw(request(api, *lines, body=b"{", target="POST /v1/jobs"), seconds=60)) == 408


def test_probes_are_answered_when_no_other_request_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_REQUESTS", 0)
    assert httpx2.get(f"{api.url}/livez").status_code == httpx2.get(f"{api.url}/readyz").status_code == 200
    refused = httpx2.get(f"{api.url}/openapi.json")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")


def test_a_head_without_bounds_is_refused(api: Api) -> None:
    assert status(api.raw(request(api, f"X: {'x' * 100_000}"))) in (400, 431)


@pytest.mark.parametrize(
    "target",
    [
        *("/v1/../livez", "/v1/%2e%2e/livez", "//v1/token", "/v1/jobs/..%2f..%2ftokens", "/v1/jobs/%00", "/v1//token"),
        *("/static/../../etc/passwd", "/v1/jobs/a%0d%0aSet-Cookie:%20a=b", "/.env", "/v1/token;x"),
    ],
)
def test_odd_paths_lead_nowhere(api: Api, target: str) -> None:
    bearer = f"Authorization: Bearer {api.token('admin')}"
    found = api.raw(request(api, bearer, "Connection: close", target=f"GET {target}"))
    assert status(found) in (400, 404, 422), found
    assert b"set-cookie" not in found.lower().partition(b"\r\n\r\n")[0]
    assert b"root:" not in found and b"Traceback" not in found and b"/site-packages" not in found


def test_errors_have_one_form_and_name_the_request(api: Api) -> None:
    with api.client("admin") as client:
        for method, path, expected in (("GET", "/v1/nothing", 404), ("PUT", "/v1/token", 405)):
            answer = client.request(method, path)
            problem = answer.json()
            assert answer.status_code == problem["status"] == expected
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert problem["request_id"] == answer.headers["X-Request-Id"]
            assert problem["type"] == f"urn:imagemill:error:{problem['code']}"
            assert problem["detail"].endswith(".")


def test_many_large_bodies_at_once_are_refused_before_they_fill_the_memory(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that holds 3 MB of bodies, and a client that has sent 2 MB of one which does not end,
    monkeypatch.setattr(held, "MOST_HELD_BYTES", 3_000_000)
    holds, take = [0], held.Holding.take

    def taken(holding: held.Holding, count: int) -> None:
        take(holding, count)
        holds[0] = holding._held.bytes

    monkeypatch.setattr(held.Holding, "take", taken)
    bearer, target = f"Authorization: Bearer {api.token('infer')}", "POST /v1/models/x/classify"
    head = request(api, bearer, "Content-Type: image/jpeg", "Content-Length: 4000000", target=target)
    url = httpx2.URL(api.url)
    with api.client("infer") as ann:

        def refused(size: int) -> bool:
            # What is no JSON is refused once all of it is here, without a look at the store.
            answer = ann.post(
                "/v1/models/x/classify", content=b"x" * size, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in (400, 503), answer.text
            return answer.status_code == 503 and "as many bytes" in answer.text and "Retry-After" in answer.headers

        with socket.create_connection((url.host, url.port or 80), 10) as slow:
            slow.sendall(head + b"x" * 2_000_000)
            wait_until(lambda: holds[0] >= 2_000_000, 20, "the first body to be held")
            # if another one sends as much, I expect it to be told to come back, while small ones have room.
            assert refused(2_000_000)
            assert not refused(500_000)
        # When the first is gone, so is what it held.
        wait_until(lambda: not refused(2_000_000), 20, "room")
