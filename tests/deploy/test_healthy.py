"""The health check of a container asks the process in it, and never a proxy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deploy.healthy import main


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_process_that_answers_is_healthy(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_METRICS_PORT", str(port))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert main([]) == 0


def test_one_that_says_no_is_not(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"http://127.0.0.1:{port}/readyz"]) == 1
    assert "503" in capsys.readouterr().err


def test_one_that_is_silent_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_METRICS_PORT", "1")
    assert main([]) == 1


@pytest.mark.parametrize("port", ["", "0", None])
def test_one_that_does_not_listen_is_healthy_while_it_runs(port: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEMILL_METRICS_PORT", raising=False)
    if port is not None:
        monkeypatch.setenv("IMAGEMILL_METRICS_PORT", port)
    assert main([]) == 0
