"""Somebody who reads the wire, or answers in place of a server, learns no secret."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import trustme
from kombu.entity import Exchange, Queue

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.backend.secret_url import SecretUrl
from contract.backend.wire import redis_address, store_address
from contract.errors import InvalidSettings, RedisUnavailable, StoreUnavailable
from contract.settings import Settings, load
from tests.wires import Wire, tap, tls_before
from worker.sources.obstore_reader import ObstoreReader

PAYLOAD = b"the bytes of an image " * 50


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def context_of(authority: trustme.CA, *names: str, expired: bool = False) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for these names."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = authority.issue_cert(*names, not_after=yesterday if expired else None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.configure_cert(context)
    return context


@contextmanager
def plaintext() -> Iterator[int]:
    """A server that answers whatever it is sent in plaintext; yields its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.wfile.write(b"+PONG\r\n" * 10)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


class Encrypted:
    """Both servers behind TLS, the settings that lead there, and what an eavesdropper recorded."""

    def __init__(self, plain: Settings, redis: Wire, store: Wire, **more: Any) -> None:
        self.redis, self.store = redis, store
        self.password = redis_address(plain).password
        self.secrets = [self.password.encode(), plain.s3_secret_key.get_secret_value().encode()]
        self.settings = Settings(
            **{
                **plain.model_dump(),
                "redis_url": SecretUrl(f"rediss://:{self.password}@127.0.0.1:{redis.port}/0"),
                "s3_endpoint": f"https://127.0.0.1:{store.port}",
                **more,
            }
        )

    @property
    def recorded(self) -> bytes:
        return bytes(self.redis.seen + self.store.seen)


@pytest.fixture
def front(settings: Settings) -> Iterator[Any]:
    """Put both servers behind TLS with a context of the test's choice."""
    with ExitStack() as stack:

        def make(context: ssl.SSLContext, **more: Any) -> Encrypted:
            redis = stack.enter_context(tls_before(redis_address(settings).port, context))
            port = urlsplit(store_address(settings).url).port
            assert port is not None
            return Encrypted(settings, redis, stack.enter_context(tls_before(port, context)), **more)

        yield make


def use_all(settings: Settings) -> None:
    """Use every kind of connection: ledger, lock, publisher, consumer, broadcasts, acknowledgement, SDK and obstore."""
    with closing(ObjectStore(settings)) as store:
        store.ensure_bucket()
        store.put("a", PAYLOAD)
        assert store.put_if_absent("b", PAYLOAD)
        assert store.get("a") == PAYLOAD
    assert ObstoreReader(settings)(settings.bucket, "a", 0, None) == PAYLOAD
    with closing(Ledger(settings)) as ledger, ledger.lock("some-job", "seldom", 5.0) as lock:
        assert lock is not None and lock.renew()
    with closing(make_app(settings)) as app:
        Queues(app).plan("some-job")
        received: list[Any] = []
        control = Queue("control", Exchange("control"), routing_key="control")
        with (
            app.connection_for_read() as connection,
            connection.Consumer(control, on_message=received.append, accept=["json"]),
        ):
            connection.drain_events(timeout=5)
            # As a worker does after its connection was lost.
            message = received.pop()
            message.channel.qos._ack_by_tag(message.delivery_tag)
        assert "some-job" in str(message.body)
        # Broadcasts go over pub/sub; no worker listens, so none answers.
        assert app.control.ping(timeout=0.2) == []


def test_a_recorder_of_the_wire_reads_nothing(front: Any, authority: trustme.CA, ca_file: Path) -> None:
    # Given Redis and a store behind TLS, signed by a private authority, and a tap on both wires,
    encrypted = front(context_of(authority, "127.0.0.1"), ca_file=ca_file)

    # if I use all that connects to them,
    use_all(encrypted.settings)

    # I expect many connections, and nothing in clear: neither passwords, nor messages, nor images, nor HTTP.
    assert encrypted.redis.connections >= 4
    assert encrypted.store.connections >= 2
    for word in [*encrypted.secrets, b"AUTH", b"some-job", PAYLOAD[:22], b"HTTP/1.1", b"LPUSH"]:
        assert word not in encrypted.recorded, word


def test_the_tap_hears_what_is_not_encrypted(settings: Settings) -> None:
    """The control experiment: without TLS the same tap records the password."""
    address = redis_address(settings)
    with tap(address.port) as wire:
        url = SecretUrl(f"redis://:{address.password}@127.0.0.1:{wire.port}/0")
        with closing(make_app(settings.model_copy(update={"redis_url": url}))) as app:
            Queues(app).plan("some-job")
    assert address.password.encode() in bytes(wire.seen)


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("wrong authority", "is not trusted (unable to get local issuer certificate)"),
        ("no authority", "is not trusted"),
        ("expired", "is not trusted (certificate has expired)"),
        ("other host", "is not trusted (IP address mismatch"),
        ("plaintext", "does not complete a TLS handshake"),
    ],
)
def test_a_server_that_cannot_prove_itself_gets_no_secret(
    front: Any, settings: Settings, authority: trustme.CA, ca_file: Path, tmp_path: Path, why: str, words: str
) -> None:
    # Given servers whose certificate is not good, or that answer in plaintext,
    trusted: Path | None = ca_file
    if why == "wrong authority":
        trusted = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(trusted))
    elif why == "no authority":
        trusted = None
    names = "192.0.2.1" if why == "other host" else "127.0.0.1"
    with ExitStack() as stack:
        if why == "plaintext":
            port = stack.enter_context(plaintext())
            taps = [stack.enter_context(tap(port)) for _ in range(2)]
            encrypted = Encrypted(settings, *taps, ca_file=trusted)
        else:
            encrypted = front(context_of(authority, names, expired=why == "expired"), ca_file=trusted)
        wrong = encrypted.settings

        # if I connect with ledger, broker, SDK and obstore, I expect one sentence that says why,
        with closing(Ledger(wrong, patience=0.0)) as ledger, pytest.raises(RedisUnavailable) as caught:
            ledger.info()
        assert words in str(caught.value) and "\n" not in str(caught.value)
        if why in ("wrong authority", "plaintext"):  # kombu tries again for five seconds
            with closing(make_app(wrong)) as app, pytest.raises(RedisUnavailable) as caught:
                Queues(app).plan("some-job")
            assert words in str(caught.value) and "\n" not in str(caught.value)
        with closing(ObjectStore(wrong, patience=0.0)) as store, pytest.raises(StoreUnavailable) as refused:
            store.put("a", PAYLOAD)
        assert words in str(refused.value) and "\n" not in str(refused.value)
        assert ObstoreReader(wrong)(wrong.bucket, "a", 0, None) is None

        # and nothing sent but the beginning of a handshake.
        for word in [*encrypted.secrets, b"AUTH", b"some-job", PAYLOAD[:22], b"AWS4-HMAC"]:
            assert word not in encrypted.recorded, word


def test_a_password_of_special_characters_arrives(settings: Settings) -> None:
    plain = redis_address(settings)
    password = "p@ss/w:rd?#%;+ é"
    with closing(Ledger(settings)) as ledger:
        ledger.redis.execute_command("ACL", "SETUSER", "an:na@", "on", f">{password}", "~*", "&*", "+@all")
    url = SecretUrl(f"redis://{quote('an:na@', safe='')}:{quote(password, safe='')}@127.0.0.1:{plain.port}/0")
    special = settings.model_copy(update={"redis_url": url})
    assert (redis_address(special).username, redis_address(special).password) == ("an:na@", password)
    with closing(Ledger(special)) as ledger, closing(make_app(special)) as app:
        assert ledger.info()
        Queues(app).plan("some-job")
        assert ledger.redis.execute_command("ACL", "WHOAMI") == "an:na@"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rediss://:hush@host/0?ssl_cert_reqs=none", "always verified"),
        ("rediss://:hush@host/0?ssl_check_hostname=false", "always verified"),
        ("redis://:hush@host/0?ssl_ca_certs=/x", "no TLS"),
        ("redis://:hush@host/0?max_connections=1", "unknown option 'max_connections'"),
        ("sentinel://:hush@host:26379/0", "does not ask Sentinel"),
        ("redis+sentinel://:hush@host:26379/main", "does not ask Sentinel"),
        ("redis://:hush@one:1/0;redis://:hush@two:1/0", "cannot be read"),
        ("unix:///run/redis.sock?password=hush", "TCP address"),
        ("amqp://anna:hush@host/", "not a Redis URL"),
        ("hush", "not a Redis URL"),
        ("redis://:hu/sh@host:1/0", "%XX"),
        ("redis://:hu#sh@host:1/0", "%XX"),
        ("redis://:hu?sh@host:1/0", "%XX"),
        ("redis://:hush@host:port/0", "cannot be read"),
    ],
)
def test_other_addresses_of_redis_are_refused_without_showing_the_password(
    settings: Settings, url: str, words: str
) -> None:
    wrong = settings.model_copy(update={"redis_url": SecretUrl(url)})
    for connect in (Ledger, make_app):
        with pytest.raises(InvalidSettings) as caught:
            connect(wrong)
        said = str(caught.value)
        assert words in said and "\n" not in said
        assert "hu" not in said.replace("authority", "")
    assert "hush" not in repr(wrong) and "sh@" not in repr(wrong)


def test_authorities_are_checked_before_anything_connects(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    secure = {"redis_url": SecretUrl("rediss://127.0.0.1:1/0"), "s3_endpoint": "https://127.0.0.1:1"}
    for name, words in (("missing.pem", "No such file"), ("empty.pem", "no certificate in PEM format")):
        wrong = settings.model_copy(update={**secure, "ca_file": tmp_path / name})
        for connect in (Ledger, make_app, ObjectStore):
            with pytest.raises(InvalidSettings, match=words):
                connect(wrong)
    with pytest.raises(InvalidSettings, match="nothing is encrypted"):
        load(redis_url="redis://host", s3_endpoint="host:80", ca_file="x.pem")
    for endpoint, words in (("ftp://host", "not an address"), ("https://me:hush@host", "holds credentials")):
        with pytest.raises(InvalidSettings, match=words) as caught:
            ObjectStore(settings.model_copy(update={"s3_endpoint": endpoint}))
        assert "hush" not in str(caught.value)
