"""`imagemill web` seen from outside: its port for machines, scraped over HTTP while clients are served, and its log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSettings, StoreUnavailable
from contract.keys.jobs import JobKeys
from contract.keys.online import served_record
from contract.online.served import Served
from contract.settings import Settings
from contract.telemetry import meters
from producer.web.app import make_app
from producer.web.observe import port as module
from producer.web.observe.health import Readiness
from producer.web.observe.port import Port
from producer.web.observe.traffic import Traffic
from producer.web.routers import ROUTERS
from tests.mill import variables
from tests.scraped import Scraped
from tests.serving import Api
from tests.waiting import wait_until

SECONDS = "imagemill_http_server_request_duration_seconds"
REF = "birds@1"


@dataclass(frozen=True)
class Web:
    """A web process."""

    api: Api
    machines: str
    """Where its port for machines is."""
    log: Path

    def ask(self, path: str) -> httpx2.Response:
        return httpx2.get(self.machines + path, timeout=30)

    def scrape(self) -> Scraped:
        return Scraped(self.ask("/metrics").raise_for_status().text)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged, all of which is JSON but what it says at its start to whoever started it."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def running(settings: Settings, store: ObjectStore, log: Path) -> Iterator[Web]:
    """Run `imagemill web` as a process of its own."""
    command = [sys.executable, "-m", "producer", "web", "--port", "0", "--json"]
    seen = settings.model_copy(update={"metrics_port": "22000-22999", "log": "json"})
    env = {**os.environ, **variables(seen)}
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]

            def machines() -> str:
                found = re.search(r"Probes and metrics are at (http://[^\"]+)\"", log.read_text())
                return found[1] if found else ""

            at = wait_until(machines, 30, "the port for machines")
            httpx2.get(f"{url}/livez", timeout=120).raise_for_status()
            yield Web(Api(url, store), at, log)
        finally:
            process.terminate()


def test_a_web_process_shows_what_it_does(settings: Settings, store: ObjectStore, tmp_path: Path, model: str) -> None:
    record = Served(name="birds", version=1, task="classify", created_at="2026-11-26T00:00:00Z")
    store.put(served_record("birds", 1), record.to_json())
    with running(settings, store, tmp_path / "log") as web:
        # Given a client that lists jobs and asks for some that are not there, and one without a token,
        token = web.api.token("jobs", "review", "infer")
        known, nobody = {"Authorization": f"Bearer {token}"}, httpx2.Client(base_url=web.api.url, timeout=30)
        client = httpx2.Client(base_url=web.api.url, headers=known, timeout=30)
        assert [client.get("/v1/jobs").status_code for _ in range(3)] == [200] * 3
        lost = [f"nobody-{secrets.token_hex(4)}" for _ in range(20)]
        assert {client.get(f"/v1/jobs/{id}").status_code for id in lost} == {404}
        assert {client.get(f"/{id}").status_code for id in lost} == {404}
        assert nobody.get("/v1/jobs").status_code == 401
        # one who meets a spec that somebody damaged,
        store.put(JobKeys("damaged").spec, b"{")
        failed = client.get("/v1/jobs/damaged")
        assert failed.status_code == 500
        # one with more than it may send, one more often than it may, one who asks a model that no worker has,
        # (which only says so: whoever is still sending may lose the answer with the connection)
        host = httpx2.URL(web.api.url).netloc
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 1048577\r\n\r\n"
        assert b" 413 " in web.api.raw(head % (host, token.encode()))
        often = {"Authorization": f"Bearer {web.api.token('jobs', 'review', rate=0.01)}"}
        assert [nobody.get("/v1/jobs", headers=often).status_code for _ in range(2)] == [200, 429]
        image = {"Content-Type": "image/jpeg"}
        assert client.post(f"/v1/models/{REF}/classify", content=b"12345", headers=image).status_code == 503
        # and one that follows a job that waits,
        body = {"command": "classify", "source": f"s3://{settings.bucket}/photos/", "model": model}
        job = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
        with client.stream("GET", f"/v1/jobs/{job}/events") as events:
            lines = events.iter_lines()  # kept, since the connection ends with it
            assert next(lines)

            def open_now() -> bool:
                found = web.scrape()
                return found.total("imagemill_http_server_streams", stream="events") == 1 and (
                    found.total("imagemill_http_server_active_requests") == 1
                )

            # if I scrape, I expect the stream to be open, and gone when its client is;
            wait_until(open_now, 30, "the stream to be shown")
        wait_until(lambda: not web.scrape().total("imagemill_http_server_streams"), 30, "the stream to end")
        wait_until(lambda: not web.scrape().total("imagemill_http_server_active_requests"), 30, "requests to end")

        # each request by its template, method and class of status,
        found = web.scrape()
        expected: list[tuple[Mapping[str, str], int]] = [
            ({"method": "GET", "route": "/v1/jobs", "status": "2xx"}, 4),
            ({"method": "GET", "route": "/v1/jobs/{id}", "status": "4xx"}, 20),
            ({"method": "GET", "route": "/v1/jobs/{id}", "status": "5xx"}, 1),
            ({"method": "POST", "route": "/v1/jobs", "status": "2xx"}, 1),
            ({"method": "POST", "route": "/v1/models/{ref}/classify", "status": "5xx"}, 1),
            ({"method": "GET", "route": "/v1/jobs/{id}/events", "status": "2xx"}, 1),
            # The paths that are not there; and no token, too large, too often.
            ({"method": "GET", "route": "", "status": "4xx"}, 20 + 2),
            ({"method": "POST", "route": "", "status": "4xx"}, 1),
        ]
        for labels, number in expected:
            assert found.total(f"{SECONDS}_count", **labels) == number, labels
        for reason in ("token", "too_large", "rate", "overloaded"):
            assert found.total("imagemill_http_server_refusals_total", reason=reason) == 1, reason
        assert found.total("imagemill_http_server_refusals_total") == 4
        assert found.total("imagemill_online_forward_seconds_count", outcome="overloaded") == 1
        classified = {"route": "/v1/models/{ref}/classify"}
        assert found.total("imagemill_http_server_request_body_bytes_total", **classified) == 5
        # what it asked of the servers behind it, and itself,
        assert found.total("imagemill_store_seconds_count") > 0 and found.total("imagemill_redis_seconds_count") > 0
        assert found.total("imagemill_build_info", role="web") == 1
        assert found.total("imagemill_live") == 1
        assert found.total("imagemill_answered_age_seconds", service="store") >= 0
        assert found.total("process_resident_memory_bytes") > 0
        # and no id, path, token or key anywhere.
        for secret in (*lost, job, token, REF, settings.bucket, settings.s3_secret_key.get_secret_value()):
            assert secret not in found.page
        templates = {str(route.path) for router in ROUTERS for route in router().routes if hasattr(route, "path")}
        assert found.values(f"{SECONDS}_count", "route") <= {*templates, "", "/livez"}

        # The log says under the id of the request what its client was not told.
        id = failed.headers["X-Request-Id"]
        assert failed.json()["request_id"] == id
        told = [line for line in web.lines() if line.get("request") == id]
        assert told and all(line["level"] in ("WARNING", "ERROR") for line in told), web.log.read_text()

        # The port has nothing else, and the one for clients has no metrics.
        assert web.ask("/livez").text == "ok\n"
        wait_until(lambda: web.ask("/readyz").text == "ok\n", 30, "its servers to be found")
        wait_until(lambda: web.scrape().total("imagemill_ready") == 1, 30, "the same as a metric")
        assert web.ask("/v1/jobs").status_code == 404 and client.get("/metrics").status_code == 404


def test_a_taken_port_leaves_the_api_as_it_is(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        async def opened() -> str:
            port = Port(settings.model_copy(update={"metrics_port": str(number)}), Readiness({}), {}, Traffic())
            async with port.opened() as address:
                return address

        assert asyncio.run(opened()) == ""
    assert f"Port {number} of 127.0.0.1 is taken" in caplog.text and not meters.recording()


def test_a_port_that_is_none_is_said_before_anything_listens(settings: Settings) -> None:
    with pytest.raises(InvalidSettings, match="IMAGEMILL_METRICS_PORT='99999' is no port"):
        make_app(settings.model_copy(update={"metrics_port": "99999"}))


def test_probes_blame_nobody_for_servers_that_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a web process whose store is away, and whose event loop turned a while ago,
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def away() -> None:
        raise StoreUnavailable("s3:8333 does not answer")

    ready = Readiness({"redis": lambda: None, "store": away}, clock=lambda: now[0])
    port = Port(Settings(), ready, {}, Traffic())
    # I expect it not to be ready before anybody has looked, then to say what is away, without an address,
    assert port._serves.page().status == 503
    ready.reasons()
    assert port._serves.page().body == b"servers: store: does not answer\n"
    # and to say so when nobody could look for long, however it stood;
    now[0] = 61.0
    assert b"no look at them has ended lately" in port._serves.page().body
    # and to live as long as its loop turns.
    port._turned_at = 1.0
    assert port._live.page().status == 200
    now[0] = 62.0
    assert port._live.page().body == b"loop: it has not turned for 61 s\n"
