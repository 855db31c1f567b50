"""Another server where Redis or the store should be: each role says so in one sentence, and none dies of it."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.backend.secret_url import SecretUrl
from contract.errors import ImagemillError, RedisUnavailable, ServiceUnavailable
from contract.settings import Settings
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
PAGE = b"<html><head><title>Welcome</title></head><body>\x1b[31mnot found</body></html>"


def http(status: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nConnection: close\r\n\r\n"
    return head.encode() + PAGE


@contextmanager
def stranger(*, greeting: bytes = b"", answer: bytes = b"", context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Yield the port of a server that greets, then gives the same answer to whatever it is told, and hangs up.

    One that answers with an error of Redis gives it to each command.
    """
    listener = socket.create_server((LOOPBACK, 0))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            connection.sendall(greeting)
            while asked := connection.recv(65536):
                if not answer.startswith(b"-"):
                    connection.sendall(answer)
                    break
                connection.sendall(answer * asked.count(b"*"))
        connection.close()

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    made, file = trustme.CA(), tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert(LOOPBACK).configure_cert(context)
    return context, file


def settings_of(redis: str, store: str, ca_file: Path | None = None) -> Settings:
    keys: dict[str, Any] = {"s3_access_key": "key", "s3_secret_key": "secret"}
    return Settings(redis_url=SecretUrl(redis), s3_endpoint=store, bucket="images", ca_file=ca_file, **keys)


IN_SCRIPT = b"-ERR Error running script (call to f_82cdd3d7ab6b96f9a5947917c9f163ca06cc907a): @user_script:1: "
"""How Redis 6.2 begins an error within a script."""
STRANGERS = {
    "a web server": (b"", http("400 Bad Request"), "is no Redis (it answers 'HTTP/1.1 400 Bad Request')"),
    "a web server that accepts anything": (b"", http("200 OK"), "is no Redis (it answers 'HTTP/1.1 200 OK')"),
    "a mail server": (b"220 mail ESMTP\r\n", b"500 what?\r\n", "is no Redis (it answers '220 mail ESMTP')"),
    "a shell": (b"SSH-2.0-OpenSSH_9.2\r\n", b"", "is no Redis (it answers 'SSH-2.0-OpenSSH_9.2')"),
    "a TLS server": (b"", b"\x15\x03\x01\x00\x02\x02\x46\r\n", "serves TLS; write rediss://"),
    "a server that hangs up": (b"", b"", "closes the connection"),
    "an old Redis": (b"", b"-ERR unknown command 'HELLO'\r\n", "lacks a command"),
    "a cluster": (b"", b"-MOVED 3999 127.0.0.1:6381\r\n", "is a member of a Redis Cluster"),
    "a Redis with little trust": (
        b"",
        b"-NOPERM this user has no permissions to run it\r\n",
        "extend the user's ACL",
    ),
    "a replica of version 6.2, within a script": (
        b"",
        IN_SCRIPT + b"@user_script: 1: -READONLY You can't write against a read only replica.\r\n",
        "is a read-only replica; point IMAGEMILL_REDIS_URL to its primary",
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_redis_is_one_sentence(name: str) -> None:
    greeting, answer, expected = STRANGERS[name]
    with stranger(greeting=greeting, answer=answer) as port:
        settings = settings_of(f"redis://{LOOPBACK}:{port}/0", f"{LOOPBACK}:1")
        # If the ledger is asked, I expect what is wrong, where, and what to do,
        with closing(Ledger(settings, patience=0.0)) as ledger, pytest.raises(RedisUnavailable) as caught:
            ledger.workers()
        said = str(caught.value)
        assert expected in said and f"{LOOPBACK}:{port}" in said
        assert said.endswith(".") and "\n" not in said and said.isprintable()


def test_a_message_that_finds_no_redis_says_so_too() -> None:
    with stranger(answer=http("400 Bad Request")) as port:
        settings = settings_of(f"redis://{LOOPBACK}:{port}/0", f"{LOOPBACK}:1")
        with closing(make_app(settings)) as app, pytest.raises(RedisUnavailable, match=r"\(the server is no Redis"):
            Queues(app).plan("a-job")


def test_tls_where_none_is_spoken_and_none_where_it_is(authority: tuple[ssl.SSLContext, Path]) -> None:
    context, file = authority
    with stranger(answer=http("400 Bad Request")) as plain, stranger(context=context) as secret:
        asked = {
            settings_of(f"rediss://{LOOPBACK}:{plain}/0", "x:1", file): "does not complete a TLS handshake",
            settings_of(f"redis://{LOOPBACK}:{secret}/0", "x:1", file): "begins with rediss://",
        }
        for settings, expected in ((one, said) for one, said in asked.items()):
            with closing(Ledger(settings, patience=0.0)) as ledger, pytest.raises(RedisUnavailable, match=expected):
                ledger.info()
        for address, expected in (
            (f"https://{LOOPBACK}:{plain}", "does not complete a TLS handshake"),
            (f"http://{LOOPBACK}:{secret}", "begins with https://"),
        ):
            with (
                closing(ObjectStore(settings_of("redis://x/0", address, file), patience=0.0)) as store,
                pytest.raises(ServiceUnavailable, match=expected),
            ):
                store.get("a")


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "404 Not Found", "200 OK", "302 Found"])
def test_a_web_server_is_no_store(status: str) -> None:
    with stranger(answer=http(status)) as port:
        settings = settings_of("redis://x/0", f"{LOOPBACK}:{port}")
        with closing(ObjectStore(settings, patience=0.0)) as store:
            # If it is listed, or written to, I expect one sentence without a word of its page.
            for ask in (lambda: list(store.list("jobs/")), lambda: store.put_if_absent("a", b"b")):
                with pytest.raises(ImagemillError) as caught:
                    ask()
                said = str(caught.value)
                assert f"{LOOPBACK}:{port}" in said and "Welcome" not in said and said.isprintable()


@pytest.mark.parametrize(
    "answer", [http("404 Not Found"), http("200 OK"), b"+PONG\r\n", b""], ids=["404", "200", "pong", "closed"]
)
def test_the_doctor_names_both(answer: bytes, tmp_path: Path) -> None:
    # Given one wrong server in place of both,
    with stranger(answer=answer) as port:
        environment = {**os.environ, "IMAGEMILL_REDIS_URL": f"redis://{LOOPBACK}:{port}/0"}
        environment |= {"IMAGEMILL_S3_ENDPOINT": f"{LOOPBACK}:{port}", "PYTHONPATH": str(ROOT)}
        environment |= {"IMAGEMILL_S3_ACCESS_KEY": "key", "IMAGEMILL_S3_SECRET_KEY": "secret"}
        done = subprocess.run(
            [sys.executable, "-c", "from producer.cli import main; main()", "doctor"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    # I expect a line for each, an exit code that says so, and no traceback.
    assert "✗ redis" in done.stdout and "✗ store" in done.stdout
    assert done.returncode == 3 and done.stderr == ""


@pytest.mark.parametrize("queues", ["control", "classify"])
def test_a_process_stays_and_tries_again(queues: str, settings: Settings, tmp_path: Path) -> None:
    # Given a worker, or a controller, whose Redis address leads to a web server,
    log = tmp_path / "log"
    with stranger(answer=http("400 Bad Request")) as port, log.open("wb") as file:
        environment = {**os.environ, "IMAGEMILL_REDIS_URL": f"redis://{LOOPBACK}:{port}/0", "PYTHONPATH": str(ROOT)}
        environment |= {"IMAGEMILL_S3_ENDPOINT": settings.s3_endpoint, "IMAGEMILL_BUCKET": settings.bucket}
        environment |= {"IMAGEMILL_S3_ACCESS_KEY": "key", "IMAGEMILL_S3_SECRET_KEY": "secret"}
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli", "run", "--queues", queues],
            env=environment,
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            # I expect it to say so, again and again, and to stay.
            wait_until(lambda: log.read_text().count("HTTP/1.1 400 Bad Request") > 1, 60, "two tries")
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait(60)
    assert "Traceback" not in log.read_text()
