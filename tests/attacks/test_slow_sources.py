"""Hosts that answer slowly, never, or later: each image has a deadline, and nobody else waits for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.errors import FetchFailed, ImageError, InvalidSettings, TooManyBytes
from contract.settings import load
from contract.web.addresses import AddressPolicy
from contract.web.client import WebClient
from tests.sites import LOOPBACK, drip, send, site
from tests.waiting import wait_until
from worker.sources.fetch import Fetcher
from worker.sources.lanes import Lanes

MEBIBYTE = 2**20
SECONDS = 1.0
OPEN = AddressPolicy(LOOPBACK, "1-65535")


@pytest.fixture
def client() -> Iterator[WebClient]:
    """Gives up after a second."""
    with closing(WebClient(OPEN, seconds=SECONDS)) as made:
        yield made


@pytest.fixture
def patient() -> Iterator[WebClient]:
    """Has time for an answer, however long a busy machine lets this process stand still."""
    with closing(WebClient(OPEN, seconds=60)) as made:
        yield made


@pytest.fixture
def gone() -> Iterator[threading.Event]:
    """Set at the end, so that servers which drip let go."""
    event = threading.Event()
    yield event
    event.set()


def too_late(client: WebClient, url: str) -> str:
    began = time.monotonic()
    with pytest.raises(FetchFailed, match="IMAGEMILL_FETCH_SECONDS") as caught:
        client.read(url, MEBIBYTE)
    assert time.monotonic() - began < 20 * SECONDS, "a deadline that nothing enforces"
    return str(caught.value)


def test_a_body_that_drips_ends_at_the_deadline(client: WebClient, gone: threading.Event) -> None:
    with site(lambda request: drip(request, gone)) as port:
        assert "took longer than the 1 s" in too_late(client, f"http://{LOOPBACK}:{port}/a")


def test_a_body_without_a_length_is_not_taken_for_complete_when_it_is_cut(
    client: WebClient, gone: threading.Event
) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            request.send_response(200)
            request.send_header("Connection", "close")
            request.end_headers()
            while not gone.wait(0.1):
                request.wfile.write(b"x")

    with site(endless) as port:
        too_late(client, f"http://{LOOPBACK}:{port}/a")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Header: "])
def test_a_header_that_drips_ends_at_the_deadline(client: WebClient, gone: threading.Event, start: bytes) -> None:
    # Given a server whose status line or header never ends, over TLS a handshake that never does,
    listener = socket.create_server((LOOPBACK, 0), backlog=16)
    listener.settimeout(0.1)

    def serve() -> None:
        while not gone.is_set():
            with suppress(OSError):
                connected, _ = listener.accept()
                with connected:
                    connected.sendall(start)
                    while not gone.wait(0.1):
                        connected.sendall(b"H" if start else b"\x16")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        # I expect that the deadline ends both.
        port = listener.getsockname()[1]
        too_late(client, f"http://{LOOPBACK}:{port}/a")
    finally:
        gone.set()
        thread.join()
        listener.close()


def test_a_handshake_that_never_ends_ends_at_the_deadline(client: WebClient) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:  # accepts, and says nothing
        too_late(client, f"https://{LOOPBACK}:{listener.getsockname()[1]}/a")


def test_a_name_server_that_never_answers_ends_at_the_deadline(gone: threading.Event) -> None:
    def silent(host: str, port: int) -> list[str]:
        gone.wait(60)
        return [LOOPBACK]

    policy = AddressPolicy("slow.test", "1-65535", silent)
    with closing(WebClient(policy, seconds=SECONDS)) as client:
        too_late(client, "http://slow.test/a")


def test_redirects_share_one_deadline(client: WebClient) -> None:
    # Given a ring of redirects, each slow and none too slow by itself, I expect one deadline over all.
    def ring(request: BaseHTTPRequestHandler) -> None:
        threading.Event().wait(0.4)
        send(request, 302, Location=f"/{int(request.path[1:]) + 1}")

    with site(ring) as port:
        too_late(client, f"http://{LOOPBACK}:{port}/0")


def test_a_server_that_asks_for_an_hour_is_not_waited_for(patient: WebClient) -> None:
    asked: list[str] = []

    def busy(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        send(request, 429, Retry_After="3600")

    with site(busy) as port:
        said = too_late(patient, f"http://{LOOPBACK}:{port}/a")
    assert "answered 429 and asks to wait 3,600 s" in said
    assert asked == ["/a"], "who asks for an hour is not asked again"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_recovers_in_time_is_asked_again(patient: WebClient, status: int) -> None:
    answers = iter([status, status, 200])

    def answer(request: BaseHTTPRequestHandler) -> None:
        found = next(answers)
        send(request, found, b"image" if found == 200 else b"", **({} if found == 200 else {"Retry_After": "0"}))

    with site(answer) as port:
        assert patient.read(f"http://{LOOPBACK}:{port}/a", MEBIBYTE) == b"image"


def test_a_connection_that_breaks_is_opened_again(patient: WebClient) -> None:
    tries: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        tries.append(1)
        if len(tries) == 1:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
        else:
            send(request, 200, b"image")

    with site(answer) as port:
        assert patient.read(f"http://{LOOPBACK}:{port}/a", MEBIBYTE) == b"image"


def test_a_body_that_says_it_is_too_large_is_not_read(patient: WebClient, gone: threading.Event) -> None:
    with site(lambda request: drip(request, gone)) as port, pytest.raises(TooManyBytes):
        patient.read(f"http://{LOOPBACK}:{port}/a", 10**5)


def test_drips_hold_up_neither_their_host_nor_another(store: ObjectStore, gone: threading.Event) -> None:
    # Given sixteen images that drip before twenty that do not, on one host with four lanes,
    def answer(request: BaseHTTPRequestHandler) -> None:
        drip(request, gone) if "drip" in request.path else send(request, 200, b"image")

    with (
        site(answer) as port,
        closing(
            Fetcher(store, MEBIBYTE, web=WebClient(OPEN, seconds=60), lanes=Lanes(lanes=64, per_host=4))
        ) as fetcher,
    ):
        base = f"http://{LOOPBACK}:{port}"
        items = [Item(f"d{n}", f"{base}/drip/{n}") for n in range(16)]
        items += [Item(f"g{n}", f"{base}/good/{n}") for n in range(20)]
        store.put("object", b"object")
        items.append(Item("object", f"s3://{store.bucket}/object"))
        # if I read them, I expect all the others long before a drip ends, while I am told that I wait.
        came: set[int] = set()
        waited = 0
        with closing(fetcher.read_any(items)) as arrivals:
            for arrived in arrivals:
                if not isinstance(arrived, str):
                    came.add(arrived[0])
                    assert arrived[1] in (b"image", b"object")
                waited += arrived == "web"
                if len(came) == 21 and waited:
                    break
        gone.set()
    assert came == set(range(16, 37))


def test_every_item_comes_once_and_in_order_where_order_is_asked_for(store: ObjectStore) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        number = int(request.path[1:])
        threading.Event().wait(0.05 if number % 7 == 0 else 0)
        send(request, 404 if number % 5 == 0 else 200, str(number).encode())

    web = WebClient(OPEN, seconds=10)
    with site(answer) as port, closing(Fetcher(store, MEBIBYTE, web=web, lanes=Lanes(8, 4))) as fetcher:
        items = [Item(str(n), f"http://{LOOPBACK}:{port}/{n}") for n in range(60)]
        frames = [items[n : n + 3] for n in range(0, 60, 3)]
        sequences = [Item.of_frames(str(n), f"m#{n}", part, length=3) for n, part in enumerate(frames)]

        def value(found: object) -> object:
            if isinstance(found, ImageError):
                return found.code
            return tuple(frame.data for frame in found) if isinstance(found, tuple) else found

        def taken(items: list[Item]) -> list[tuple[int, object]]:
            """Read in any order, give the memory back, and sort."""
            came = []
            for one in fetcher.read_any(items):
                if not isinstance(one, str):
                    place, encoded, memory = one
                    came.append((place, value(encoded)))
                    memory.release()
            return sorted(came, key=lambda one: one[0])

        expected = ["not_found" if n % 5 == 0 else str(n).encode() for n in range(60)]
        assert [value(found) for _, found in fetcher.read(items)] == expected
        places, found = zip(*taken(items), strict=True)
        assert (list(places), list(found)) == (list(range(60)), expected)
        in_order = [value(found) for _, found in fetcher.read(sequences)]
        assert [found for _, found in taken(sequences)] == in_order
        assert in_order[1] == "not_found" and in_order[2] == (b"6", b"7", b"8")


def test_one_host_cannot_hold_all_lanes(gone: threading.Event) -> None:
    # Given more fetches of one host than there are lanes, and none of them ends,
    lanes: Lanes[None] = Lanes(lanes=8, per_host=2)

    def stuck() -> None:
        gone.wait(60)

    held = [lanes.submit("a", stuck) for _ in range(20)]
    wait_until(lambda: sum(flight.slow for flight in held) == 4, 20, "half of the lanes to be slow")
    # if another host is fetched from, I expect that it is at once, and that the first has no more lanes.
    lanes.submit("b", lambda: None).future.result(20)
    assert sum(flight.began > 0 for flight in held) == 6
    gone.set()
    for flight in held:
        flight.future.result(20)
    lanes.close()


def test_a_worker_that_ends_waits_for_no_slow_host(gone: threading.Event) -> None:
    # Given a fetch that drips for as long as it may,
    asked = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.set()
        drip(request, gone)

    client = WebClient(OPEN, seconds=300)
    with site(answer) as port:
        ended: list[ImageError] = []

        def fetch() -> None:
            try:
                client.read(f"http://{LOOPBACK}:{port}/a", MEBIBYTE)
            except ImageError as error:
                ended.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        assert asked.wait(60)
        # if the client is closed, I expect that it ends.
        client.close()
        thread.join(60)
        assert [error.code for error in ended] == ["fetch_failed"]


def test_a_name_that_is_never_answered_holds_one_thread(gone: threading.Event) -> None:
    # Given a name server that never answers for one host, and answers for others,
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if host == "silent.test":
            gone.wait(60)
        return [LOOPBACK]

    policy = AddressPolicy("*.test", "1-65535", resolve)
    with (
        site(lambda request: send(request, 200, b"image")) as port,
        closing(WebClient(policy, seconds=SECONDS)) as client,
        closing(WebClient(policy, seconds=60)) as patient,
    ):
        # if many images of that host are wanted at once,
        threads = [
            threading.Thread(target=too_late, args=(client, f"http://silent.test:{port}/{n}")) for n in range(20)
        ]
        for thread in threads:
            thread.start()
        # I expect that another host is reached, and that the silent one was asked for once.
        assert patient.read(f"http://other.test:{port}/a", MEBIBYTE) == b"image"
        for thread in threads:
            thread.join()
    assert asked.count("silent.test") == 1


def test_a_setting_that_opens_nothing_is_found_when_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_FETCH_ALLOW", "http://images.corp")
    with pytest.raises(InvalidSettings, match="IMAGEMILL_FETCH_ALLOW"):
        load()
