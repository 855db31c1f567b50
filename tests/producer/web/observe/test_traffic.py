"""What is measured of requests: every one once, by template and class of status, whatever paths strangers think of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from contract import instruments
from contract.errors import (
    CredentialsRefused,
    Expired,
    ImagemillError,
    InvalidSettings,
    NotOwner,
    OnlineFailed,
    Overloaded,
    RedisUnavailable,
    RequestTooLarge,
    StoreFull,
    StoreUnavailable,
    UnknownJob,
)
from contract.settings import Settings
from contract.telemetry import meters, traces
from contract.telemetry.prometheus import Metrics
from producer.web.observe import refusals
from producer.web.observe.traffic import App, Measured, Message, Receive, Scope, Send, Traffic
from producer.web.problems import Problem, internal, of_error
from producer.web.routers import ROUTERS
from tests.otlp import collecting
from tests.scraped import Scraped

SECONDS = "imagemill_http_server_request_duration_seconds"


@pytest.fixture
def scrape() -> Iterator[Callable[[], Scraped]]:
    """A process whose requests are measured: return what it shows now."""
    metrics = Metrics(["web"])
    meters.record_with(metrics)
    yield lambda: Scraped(metrics.page().body.decode())
    meters.record_with(None)


def routed() -> FastAPI:
    """All routes of the API and of the console, without the guard: nobody has a token."""
    app = FastAPI(docs_url=None, redoc_url=None)
    for router in ROUTERS:
        app.include_router(router())
    return app


def ask(app: App, *requests: tuple[str, str]) -> list[int]:
    async def all_of_them() -> list[int]:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [(await client.request(method, path)).status_code for method, path in requests]

    return asyncio.run(all_of_them())


def run(app: App, *received: Message, method: str = "GET", route: str = "", path: str = "/x") -> list[Message]:
    """Send one request through an application that is measured; return what it answered."""
    scope: Scope = {"type": "http", "method": method, "path": path}
    if route:
        scope["route"] = SimpleNamespace(path=route, methods={method})
    left, sent = list(received), list[Message]()

    async def receive() -> Message:
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Measured(app, Traffic())(scope, receive, send))
    return sent


def answering(status: int, *pieces: bytes, kind: bytes = b"application/json") -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"Content-Type", kind)]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def test_random_paths_and_methods_make_no_series(scrape: Callable[[], Scraped]) -> None:
    # Given every route, if somebody asks for 2,000 paths that he thinks of, half of them with the form of a real one,
    # by every method and by two that do not exist,
    rng = random.Random(0)
    app = routed()
    paths = {str(route.path) for router in ROUTERS for route in router().routes if hasattr(route, "path")}
    methods = [*instruments.METHOD.values, "OPTIONS", "BREW"]
    requests = []
    for n in range(2_000):
        path = rng.choice(sorted(paths)) if n % 2 else f"/{rng.randbytes(8).hex()}"
        for hole in ("{id}", "{ref}", "{name}", "{alias}", "{action}", "{shard}", "{command}", "{version}"):
            path = path.replace(hole, f"secret-{rng.randbytes(8).hex()}")
        requests.append((rng.choice(methods), path))
    answers = ask(Measured(app, Traffic()), *requests)
    assert {401, 404, 405} <= set(answers)

    # I expect each to be counted, by templates that the API has, and no method beside the usual ones,
    found = scrape()
    assert found.total(f"{SECONDS}_count") == 2_000
    assert found.values(f"{SECONDS}_count", "route") <= {*paths, ""}
    assert found.values(f"{SECONDS}_count", "method") == {*instruments.METHOD.values, meters.OTHER}
    assert "secret-" not in found.page
    # a route only under its own methods,
    methods_of: dict[str, set[str]] = {}
    for router in ROUTERS:
        for route in router().routes:
            methods_of.setdefault(route.path, set()).update(route.methods)  # type: ignore[attr-defined]
    for labels, _ in found.series(f"{SECONDS}_count"):
        assert not labels["route"] or labels["method"] in methods_of[labels["route"]]
    # and so few lines that a scrape stays small however long that goes on.
    assert len(list(found.series(f"{SECONDS}_count"))) <= 2 * len(paths) + 30


def test_every_route_has_a_place_in_the_label() -> None:
    paths = {str(route.path) for router in ROUTERS for route in router().routes if hasattr(route, "path")}
    # The rest of the application adds the probes, the OpenAPI document and the empty one.
    assert 100 < len(paths) + 4 <= instruments.ROUTE.most
    assert max(map(len, paths)) <= 100
    assert {m for router in ROUTERS for route in router().routes for m in route.methods} <= set(  # type: ignore[attr-defined]
        instruments.METHOD.values
    )


@pytest.mark.parametrize(("status", "shown"), [(200, "2xx"), (303, "3xx"), (429, "4xx"), (503, "5xx")])
def test_a_request_is_counted_once_with_what_it_and_its_answer_weigh(
    status: int, shown: str, scrape: Callable[[], Scraped]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await answering(status, b"12345", b"678")(scope, receive, send)

    first: Message = {"type": "http.request", "body": b"abc", "more_body": True}
    sent = run(app, first, {"type": "http.request", "body": b"de"}, method="POST", route="/v1/jobs")
    assert [message.get("body") for message in sent] == [None, b"12345", b"678", b""]
    found = scrape()
    assert found.total(f"{SECONDS}_count", method="POST", route="/v1/jobs", status=shown) == 1
    assert found.total(f"{SECONDS}_count") == 1
    assert found.total("imagemill_http_server_request_body_bytes_total", route="/v1/jobs") == 5
    assert found.total("imagemill_http_server_response_body_bytes_total", route="/v1/jobs") == 8


@pytest.mark.parametrize(
    ("kind", "stream"),
    [
        (b"text/event-stream; charset=utf-8", "events"),
        (b"application/x-ndjson", "rows"),
        (b"application/vnd.apache.arrow.stream", "rows"),
        (b"application/json", ""),
    ],
)
def test_streams_count_while_they_are_open_and_events_are_timed_to_their_beginning(
    kind: bytes, stream: str, scrape: Callable[[], Scraped]
) -> None:
    traffic = Traffic()
    seen: list[Scraped] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        traffic.show()
        seen.append(scrape())
        raise ClientDisconnect  # it has seen enough

    async def send(message: Message) -> None:
        pass

    async def go() -> None:
        with pytest.raises(ClientDisconnect):
            await Measured(app, traffic)({"type": "http", "method": "GET", "path": "/"}, never, send)

    asyncio.run(go())
    for one in instruments.STREAM.values:
        assert seen[0].total("imagemill_http_server_streams", stream=one) == (one == stream)
    assert seen[0].total("imagemill_http_server_active_requests") == 1
    assert seen[0].total(f"{SECONDS}_count") == (stream == "events")
    traffic.show()
    assert scrape().total("imagemill_http_server_streams") == 0
    assert scrape().total("imagemill_http_server_active_requests") == 0
    assert scrape().total(f"{SECONDS}_count", status="2xx") == 1


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def test_an_answer_that_an_error_here_breaks_off_is_a_fault_of_the_server(scrape: Callable[[], Scraped]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(app)
    assert scrape().total(f"{SECONDS}_count", status="5xx") == 1


@pytest.mark.parametrize("error", [ConnectionError("took nothing"), ClientDisconnect(), asyncio.CancelledError()])
def test_a_client_that_goes_away_is_no_fault_of_the_server(error: BaseException, scrape: Callable[[], Scraped]) -> None:
    # Given a client that leaves while it is answered, or before, whatever is made of it then,
    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    async def unread(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await answering(500)(scope, receive, send)
        raise error

    for app in (answered, unread):
        with pytest.raises(type(error)):
            run(app, {"type": "http.disconnect"})
    # I expect it as what it was answered, and as nothing.
    assert scrape().total(f"{SECONDS}_count", status="2xx") == 1
    assert scrape().total(f"{SECONDS}_count", status="none") == 1
    assert scrape().total(f"{SECONDS}_count", status="5xx") == 0


def test_what_is_no_request_is_passed_on(scrape: Callable[[], Scraped]) -> None:
    passed: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    async def send(message: Message) -> None:
        pass

    asyncio.run(Measured(app, Traffic())({"type": "lifespan"}, never, send))
    assert passed == ["lifespan"] and scrape().total(f"{SECONDS}_count") == 0


REFUSED: list[tuple[Problem, str]] = [
    (Problem(401, "x"), "token"),
    (Problem(403, "x"), "forbidden"),
    (of_error(NotOwner("x")), "forbidden"),
    (Problem(408, "x"), "slow"),
    (Problem(413, "x"), "too_large"),
    (of_error(RequestTooLarge("x")), "too_large"),
    (Problem(421, "x"), "host"),
    (Problem(429, "x"), "rate"),
    (Problem(431, "x"), "headers"),
    (Problem(503, "x"), "busy"),
    (of_error(Overloaded("x", retry_after=1)), "overloaded"),
]
FAILED: list[tuple[ImagemillError, str]] = [
    (RedisUnavailable("x"), "redis"),
    (StoreUnavailable("x"), "store"),
    (CredentialsRefused("x"), "store"),
    (StoreFull("x"), "store"),
    (OnlineFailed("x"), "worker"),
    (Expired("x"), "worker"),
]


@pytest.mark.parametrize(("problem", "reason"), REFUSED)
def test_a_refusal_has_a_reason(problem: Problem, reason: str, scrape: Callable[[], Scraped]) -> None:
    refusals.note(problem, "id")
    assert scrape().total("imagemill_http_server_refusals_total", reason=reason) == 1
    assert scrape().total("imagemill_http_server_refusals_total") == 1
    assert scrape().total("imagemill_http_server_upstream_errors_total") == 0


@pytest.mark.parametrize(("error", "service"), FAILED)
def test_a_failure_names_the_server_behind(error: ImagemillError, service: str, scrape: Callable[[], Scraped]) -> None:
    refusals.note(of_error(error), "id")
    assert scrape().total("imagemill_http_server_upstream_errors_total", service=service) == 1
    assert scrape().total("imagemill_http_server_upstream_errors_total") == 1
    assert scrape().total("imagemill_http_server_refusals_total") == 0


def test_every_reason_and_every_server_can_be_counted() -> None:
    assert {reason for _, reason in REFUSED} == set(instruments.REFUSAL.values)
    assert {service for _, service in FAILED} == set(instruments.UPSTREAM.values)


@pytest.mark.parametrize("problem", [of_error(UnknownJob("x")), of_error(InvalidSettings("x")), internal()])
def test_other_errors_are_neither(problem: Problem, scrape: Callable[[], Scraped]) -> None:
    refusals.note(problem, "id")
    assert scrape().total("imagemill_http_server_refusals_total") == 0
    assert scrape().total("imagemill_http_server_upstream_errors_total") == 0


def test_what_a_client_is_not_told_is_logged_and_an_overload_is_not(caplog: pytest.LogCaptureFixture) -> None:
    for error in (RedisUnavailable("redis:6379 is away"), Overloaded("full", retry_after=1), UnknownJob("x")):
        refusals.note(of_error(error), "0123")
    assert [record.getMessage() for record in caplog.records] == ["Request 0123: redis:6379 is away"]


def test_a_request_is_a_trace_without_anything_that_its_client_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install '.[otel]'")
    # Given a process that traces all requests,
    with collecting(monkeypatch) as sink:
        traces.set_up(Settings(traces=1.0), "tests")

        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            scope["imagemill.request_id"] = "0123"
            refusals.note(of_error(RedisUnavailable("redis:6379 is away")), "0123")
            await answering(503)(scope, receive, send)

        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            scope["imagemill.request_id"] = "4567"
            refusals.note(of_error(Overloaded("full", retry_after=1)), "4567")
            await answering(503)(scope, receive, send)

        # if one fails, one is refused and one is a probe,
        run(failing, method="POST", route="/v1/jobs")
        run(refusing, method="BREW")
        run(answering(200), path="/livez")
        traces.close()
        spans = sink.all()

    # I expect the first as an error, by its template, the second by no method that a stranger made up, and no probe.
    first, second = spans
    assert (first.name, first.error) == ("POST /v1/jobs", "RedisUnavailable: redis:6379 is away")
    assert first.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 503,
        "imagemill.request": "0123",
    }
    assert (second.name, second.error, second.attributes["http.request.method"]) == ("HTTP", "", "_OTHER")
    assert first.trace != second.trace and first.parent == second.parent == ""
