"""What a manifest may make a worker reach: nothing that is not public, by no notation, redirect or change of a name."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.errors import AddressRefused, FetchFailed, ImageError, InvalidSettings
from contract.jobs.reach import Reach
from contract.jobs.specs import Source
from contract.settings import Settings
from contract.web.addresses import AddressPolicy, is_public, shown
from contract.web.client import WebClient
from tests.attacks.vectors import vectors
from tests.sites import LOOPBACK, Canary, send, site
from worker.sources.fetch import Fetcher

MEBIBYTE = 2**20
ANY_PORT = "1-65535"


@pytest.fixture
def canary() -> Iterator[Canary]:
    with Canary().listening(LOOPBACK, "::1") as made:
        yield made


def to_loopback(host: str, port: int) -> Sequence[str]:
    """A resolver for which every name is this machine."""
    return [LOOPBACK]


def refusal(client: WebClient, url: str) -> str:
    with pytest.raises(AddressRefused) as caught:
        client.read(url, MEBIBYTE)
    return str(caught.value)


def test_no_notation_of_an_inner_address_is_connected_to(canary: Canary) -> None:
    # Given a service on this machine, and a worker to which every port is open,
    urls = list(vectors(canary.port))
    with closing(WebClient(AddressPolicy(ports=ANY_PORT, resolver=to_loopback), seconds=60)) as client:
        # if a manifest lists it in every notation, I expect a refusal of each, in one sentence,
        for url in urls:
            assert refusal(client, url).count("\n") == 0
    # and no connection.
    assert len(urls) >= 50
    assert canary.connections == 0


def test_no_redirect_leads_inside(canary: Canary) -> None:
    # Given a public host, which the operator's resolver finds here, that redirects to wherever its path says,
    targets = list(vectors(canary.port))

    def redirect(request: BaseHTTPRequestHandler) -> None:
        if not request.path[1:].isdigit():  # a target that is a path of this host
            send(request, 404)
            return
        send(request, 302, Location=targets[int(request.path[1:])].encode().decode("latin-1").replace("\t", "%09"))

    with site(redirect) as port:
        policy = AddressPolicy("public.test", ANY_PORT, to_loopback)
        with closing(WebClient(policy, seconds=60)) as client:
            # if I fetch from it, I expect a failure of each, and no connection.
            for number in range(len(targets)):
                with pytest.raises(ImageError) as caught:
                    client.read(f"http://public.test:{port}/{number}", MEBIBYTE)
                assert caught.value.code in ("address_refused", "fetch_failed", "not_found"), targets[number]
            assert "redirects to another address" in refusal(client, f"http://public.test:{port}/0")
    assert canary.connections == 0


def test_a_name_that_changes_between_check_and_use_changes_nothing(canary: Canary) -> None:
    # Given a name server that answers with a public address first and with this machine afterwards,
    asked: list[str] = []

    def rebind(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) % 2 == 0 else [LOOPBACK]

    def rebind_late(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["8.8.8.8"] if len(asked) == 1 else [LOOPBACK]

    # if I fetch, I expect that only what was checked is connected to: the answer is used once.
    with closing(WebClient(AddressPolicy(ports=ANY_PORT, resolver=rebind), seconds=60)) as client:
        refusal(client, f"http://rebind.test:{canary.port}/x")
    asked.clear()
    policy = AddressPolicy(ports=ANY_PORT, resolver=rebind_late)
    assert policy.resolve("rebind.test", canary.port) == [ip_address("8.8.8.8")]
    with closing(WebClient(policy, seconds=60)) as client:
        refusal(client, f"http://rebind.test:{canary.port}/x")
    assert canary.connections == 0


@pytest.mark.parametrize("mixed", [["8.8.8.8", LOOPBACK], [LOOPBACK, "8.8.8.8"], ["2606:4700::1", "::1"]])
def test_a_name_with_one_inner_address_is_refused_as_a_whole(canary: Canary, mixed: list[str]) -> None:
    with closing(WebClient(AddressPolicy(ports=ANY_PORT, resolver=lambda *_: mixed), seconds=60)) as client:
        refusal(client, f"http://mixed.test:{canary.port}/x")
    assert canary.connections == 0


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "1.1.1.1", "193.0.6.139", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ip_address(text))


def test_a_host_keeps_its_name_on_the_way_to_the_checked_address() -> None:
    # Given an allowed host, I expect that it hears its own name.
    heard: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        heard.append(str(request.headers["Host"]))
        send(request, 200, b"image")

    with site(answer) as port, closing(WebClient(AddressPolicy("img.corp", ANY_PORT, to_loopback))) as client:
        assert client.read(f"http://img.corp:{port}/a", MEBIBYTE) == b"image"
        assert client.read(f"http://IMG.corp.:{port}/a", MEBIBYTE) == b"image"
        assert "IMAGEMILL_FETCH_ALLOW" in refusal(client, f"http://other.corp:{port}/a")
    assert heard == [f"img.corp:{port}"] * 2


def test_tls_is_checked_against_the_name_not_the_address(tmp_path: Path) -> None:
    # Given an allowed host whose certificate nobody signed, I expect no fetch, and that it was asked for by its name.
    names: list[str | None] = []
    listener = socket.create_server((LOOPBACK, 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _sock, name, _context: names.append(name)

    with listener, closing(WebClient(AddressPolicy("img.corp", ANY_PORT, to_loopback), seconds=60)) as client:

        def serve() -> None:
            connected, _ = listener.accept()
            with connected, suppress(OSError):
                context.wrap_socket(connected, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(FetchFailed):
            client.read(f"https://img.corp:{listener.getsockname()[1]}/a", MEBIBYTE)
        thread.join()
    assert names == ["img.corp"]


def test_ports_are_closed_until_they_are_listed(canary: Canary) -> None:
    with closing(WebClient(AddressPolicy(LOOPBACK))) as client:
        assert "IMAGEMILL_FETCH_PORTS" in refusal(client, f"http://127.0.0.1:{canary.port}/x")
    assert canary.connections == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://10.1.2.3/", "http://[::ffff:10.1.2.3]/", "http://a.corp/"]
)
def test_networks_and_names_open_what_they_name(url: str) -> None:
    policy = AddressPolicy("127.0.0.0/8, 10.1.0.0/16, *.corp", resolver=lambda *_: ["192.168.1.1"])
    target = policy.target(url)
    assert policy.resolve(target.host, target.port)


def test_a_name_opens_no_metadata_service() -> None:
    # Given a host that the operator allowed, whose name server turns against him,
    policy = AddressPolicy("img.corp", resolver=lambda *_: ["169.254.169.254"])
    # I expect that his trust in a host is no trust in the credentials of the machine.
    with pytest.raises(AddressRefused):
        policy.resolve("img.corp", 80)


@pytest.mark.parametrize("allow", ["http://a", "a b", "10.0.0.0/99", "0x7f.1", "*", "a/b"])
def test_a_setting_that_opens_nothing_is_refused(allow: str) -> None:
    with pytest.raises(InvalidSettings, match="IMAGEMILL_FETCH_ALLOW"):
        AddressPolicy(allow)
    with pytest.raises(InvalidSettings, match="IMAGEMILL_FETCH_PORTS"):
        AddressPolicy(ports="http")


def test_a_password_in_an_address_is_never_printed() -> None:
    assert shown("https://user:secret@example.com/a?b") == "https://…@example.com/a?b"


def test_a_manifest_reaches_no_other_bucket(settings: Settings, store: ObjectStore) -> None:
    # Given two buckets that the worker's credentials can read,
    other = f"{store.bucket}-other"
    with closing(ObjectStore(settings.model_copy(update={"bucket": other}))) as there:
        there.ensure_bucket()
        there.put("secret.jpg", b"secret")
    store.put("own.jpg", b"own")
    items = [
        Item("a", f"s3://{other}/secret.jpg"),
        Item("b", f"s3://{other}/x.tar#m", size=6, tar=f"s3://{other}/secret.jpg", offset=0),
        Item("c", f"s3://{store.bucket}/own.jpg"),
    ]
    # if a manifest in one of them lists images of the other, I expect a refusal that names the setting;
    with closing(Fetcher(store, MEBIBYTE)) as fetcher:
        found = [outcome for _, outcome in fetcher.read(items)]
        assert [f.code if isinstance(f, ImageError) else f for f in found] == ["address_refused"] * 2 + [b"own"]
        assert "IMAGEMILL_FETCH_BUCKETS" in str(found[0])
        # a job whose source lies there reads it,
        reach = Reach.of(store, Source(kind="prefix", uri=f"s3://{other}/", label="other"))
        assert [f for _, f in fetcher.read(items[:1], reach)] == [b"secret"]
    # as does a worker to which the bucket is listed.
    with closing(Fetcher(store, MEBIBYTE, buckets=[other])) as fetcher:
        assert [f for _, f in fetcher.read(items[:1])] == [b"secret"]
