"""The port for machines: GET from a table of pages, and nothing for those who send something else."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from urllib.error import HTTPError

import pytest

from contract.errors import InvalidSettings
from contract.telemetry import server as module
from contract.telemetry.routes import Answer, Routes, as_json, text
from contract.telemetry.server import Server, parse_ports
from tests.waiting import wait_until

ANY_PORT = [0]
"""The system chooses one that nobody can take in between."""


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def routes() -> Routes:
    table = Routes()
    table.add("/livez", lambda: text(200, "ok"))
    table.add("/fails", lambda: text(200, str(1 // 0)))
    table.add_named("/scale/", lambda pool: as_json({"pool": pool}))
    return table


@pytest.fixture
def address(routes: Routes) -> Iterator[tuple[str, int]]:
    server = Server(routes, "127.0.0.1", ANY_PORT)
    host, _, port = server.open().rpartition(":")
    assert server.address == f"127.0.0.1:{port}"
    yield host, int(port)
    server.close()


def ask(address: tuple[str, int], request: bytes, seconds: float = 10) -> bytes:
    """What comes back until the server closes the connection."""
    with closing(socket.create_connection(address, timeout=seconds)) as wire:
        with suppress(OSError):  # it may be closed before all is sent
            wire.sendall(request)
        found = b""
        with suppress(ConnectionResetError):
            while data := wire.recv(65536):
                found += data
        return found


def get(address: tuple[str, int], path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_page_is_answered(address: tuple[str, int]) -> None:
    assert get(address, "/livez") == (200, b"ok\n")
    assert get(address, "/livez?verbose=1") == (200, b"ok\n")
    assert get(address, "/scale/gpu-pool") == (200, b'{"pool": "gpu-pool"}\n')


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/livez/", "/LIVEZ", "/%6civez", "/../livez", "/livez/../livez", "/livez%00", "/metrics"),
        *(
            "/scale/",
            "/scale",
            "/scale/../livez",
            "/scale/..",
            "/scale/a/b",
            "/scale/%2e%2e",
            "/scale/a%0a",
            "/etc/passwd",
        ),
        f"/scale/{'a' * 64}",
    ],
)
def test_tricks_with_paths_find_nothing(address: tuple[str, int], path: str) -> None:
    status, body = get(address, path)
    assert status == 404
    assert body == b"There is no such page; see /fails, /livez, /scale/NAME.\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"])
def test_only_get_is_answered(address: tuple[str, int], method: str) -> None:
    answer = ask(address, f"{method} /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode())
    assert answer.startswith(b"HTTP/1.0 405 ")
    assert b"\r\nAllow: GET\r\n" in answer and answer.endswith(b"\r\n\r\nOnly GET is answered.\n")


def test_who_posts_while_the_process_starts_is_asked_to_come_again(routes: Routes, address: tuple[str, int]) -> None:
    request = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    routes.starting = True
    assert ask(address, request).startswith(b"HTTP/1.0 503 ")
    routes.starting = False
    assert ask(address, request).startswith(b"HTTP/1.0 405 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the start of a TLS handshake
        b"GET <script>alert(1)</script> HTTP/9.9\r\n\r\n",
        b"GET /livez\r\n",
        b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_without_an_echo(address: tuple[str, int], request_: bytes) -> None:
    answer = ask(address, request_ + b"\n")
    assert b"script" not in answer and b"aaa" not in answer and b"Python" not in answer
    assert b" 200 " not in answer
    assert get(address, "/livez")[0] == 200


def test_a_page_that_fails_says_no_more(address: tuple[str, int]) -> None:
    status, body = get(address, "/fails")
    assert status == 500 and b"division" not in body


def test_slow_clients_cannot_keep_a_probe_out(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a hundred clients that begin a request and never end it,
    slow = [socket.create_connection(address, timeout=10) for _ in range(100)]
    try:
        for wire in slow:
            wire.sendall(b"GET /livez HTT")

        # if a probe asks, I expect an answer,
        assert get(address, "/livez") == (200, b"ok\n")
    finally:
        for wire in slow:
            wire.close()


def test_a_connection_ends_however_slowly_it_speaks(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a client that sends a byte now and then,
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    with closing(socket.create_connection(address, timeout=10)) as wire:

        def ended() -> bool:
            try:
                wire.sendall(b"G")
                wire.settimeout(0.05)
                return wire.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        # I expect the server to end the connection.
        wait_until(ended, 10, "the connection to end")


def test_processes_of_one_machine_share_a_range(routes: Routes) -> None:
    # Given a server on the first port of a range,
    first = free_port()
    ports = parse_ports(f"{first}-{min(first + 20, 65535)}")
    one, other = Server(routes, "127.0.0.1", ports), Server(routes, "127.0.0.1", ports)
    try:
        one.open()

        # if another process opens the range, I expect it on a later port.
        assert other.open() != one.address
    finally:
        one.close()
        other.close()


def test_a_port_that_is_taken_is_one_sentence(routes: Routes, address: tuple[str, int]) -> None:
    with pytest.raises(InvalidSettings, match=rf"Port {address[1]} of 127\.0\.0\.1 is taken, perhaps"):
        Server(routes, "127.0.0.1", [address[1]]).open()


def test_a_host_that_is_not_ours_is_one_sentence(routes: Routes) -> None:
    with pytest.raises(InvalidSettings, match=r"IMAGEMILL_METRICS_HOST='192\.0\.2\.1' cannot be opened"):
        Server(routes, "192.0.2.1", ANY_PORT).open()


@pytest.mark.parametrize(
    ("given", "ports"), [("", []), ("0", []), ("9464", [9464]), ("9464-9466", [9464, 9465, 9466]), (" 80 ", [80])]
)
def test_ports_are_read(given: str, ports: list[int]) -> None:
    assert list(parse_ports(given)) == ports


@pytest.mark.parametrize("given", ["-1", "70000", "9-8", "0-5", "a", "80,81", "80-", "1-70000"])
def test_what_is_no_port_is_refused(given: str) -> None:
    with pytest.raises(InvalidSettings, match="is no port"):
        parse_ports(given)


def test_an_answer_keeps_what_no_encoding_writes() -> None:
    assert text(503, "a\ud800b") == Answer(503, b"a\\ud800b\n")


def test_closing_ends_what_is_open(routes: Routes) -> None:
    server = Server(routes, "127.0.0.1", ANY_PORT)
    host, _, port = server.open().rpartition(":")
    with closing(socket.create_connection((host, int(port)), timeout=10)) as wire:
        time.sleep(0)  # let the server accept it
        server.close()
        with suppress(ConnectionResetError):
            assert wire.recv(1) == b""
