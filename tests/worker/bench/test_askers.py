"""An asker takes an answer for what it is: a label, a refusal, too late, or a fault."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contract.errors import Expired, OnlineFailed, Overloaded
from contract.settings import Settings
from worker.bench import askers

LABELLED = {"key": "0", "top_k": [{"label": "cat", "score": 0.9}], "error": None}


class Api(ThreadingHTTPServer):
    """Answers as it is told, and keeps what it was asked."""

    answer: tuple[int, Any] = 200, LABELLED

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, bytes]] = []
        self.connections = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        status, said = self.server.answer
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(api: Api, times: int = 1) -> None:
    settings = Settings(api_url=f"http://127.0.0.1:{api.server_port}", api_token="secret")

    async def run() -> None:
        async with askers.api(settings, "model", clients=1) as asked:
            for _ in range(times):
                await asked(b"jpeg")

    asyncio.run(run())


def test_an_image_is_the_body_of_a_request_on_one_connection(api: Api) -> None:
    ask(api, times=3)
    assert api.asked == [("/v1/models/model/classify", "Bearer secret", b"jpeg")] * 3
    assert api.connections == 1


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (503, {}, Overloaded),
        (504, {}, Expired),
        (401, {}, OnlineFailed),
        (200, {**LABELLED, "error": "not_an_image"}, OnlineFailed),
        (200, {**LABELLED, "top_k": []}, OnlineFailed),
    ],
)
def test_no_label_is_no_answer(api: Api, status: int, said: Any, error: type[Exception]) -> None:
    api.answer = status, said
    with pytest.raises(error):
        ask(api)
