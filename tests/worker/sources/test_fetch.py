"""Bytes come in order, whatever they lie in, and what cannot be read is an error in its place."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.errors import ImageError, StoreUnavailable
from contract.jobs.reach import Reach
from contract.settings import Settings
from contract.web.addresses import AddressPolicy
from contract.web.client import WebClient
from tests.sites import LOOPBACK, send, site
from worker.sources.fetch import Fetcher

LIMIT = 10_000


@pytest.fixture
def fetcher(store: ObjectStore) -> Iterator[Fetcher]:
    made = Fetcher(store, LIMIT, threads=4)
    yield made
    made.close()


def packed(store: ObjectStore, members: dict[str, bytes]) -> list[Item]:
    """Items of a tar in the store."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    store.put("x.tar", sink.getvalue())
    uri = f"s3://{store.bucket}/x.tar"
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        return [Item(m.name, f"{uri}#{m.name}", size=m.size, tar=uri, offset=m.offset_data) for m in tar.getmembers()]


def outcome(found: object) -> bytes | str:
    assert isinstance(found, bytes | ImageError)
    return found if isinstance(found, bytes) else found.code


def test_objects_come_in_order(store: ObjectStore, fetcher: Fetcher) -> None:
    names = [f"{n:03d}" for n in range(70)]
    for name in names:
        store.put(f"in/{name}", name.encode())
    items = [Item(name, f"s3://{store.bucket}/in/{name}") for name in names]
    assert [(i.key, d) for i, d in fetcher.read(items)] == [(n, n.encode()) for n in names]


def test_members_of_a_tar_come_by_a_few_large_requests(
    store: ObjectStore, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"{n:03d}.jpg": bytes([n]) * (900 + n) for n in range(200)}
    members["100.jpg"] = b""
    items = packed(store, members)
    requests: list[int] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda *a, **k: requests.append(1) or get(*a, **k))
    assert {i.key: d for i, d in fetcher.read(items)} == members
    assert len(requests) <= 2


def test_members_out_of_order_and_apart_are_found_too(store: ObjectStore, fetcher: Fetcher) -> None:
    members = {f"{n}.jpg": bytes([n]) * 5000 for n in range(40)}
    items = packed(store, members)
    chosen = [items[n] for n in (39, 3, 4, 5, 0, 30)]
    assert [d for _, d in fetcher.read(chosen)] == [members[i.key] for i in chosen]


def test_what_cannot_be_read_is_an_error_in_its_place(store: ObjectStore, fetcher: Fetcher) -> None:
    store.put("in/good", b"good")
    store.put("in/large", bytes(LIMIT + 1))
    bucket = store.bucket
    items = [
        Item("good", f"s3://{bucket}/in/good"),
        Item("gone", f"s3://{bucket}/in/gone"),
        Item("large, told", f"s3://{bucket}/in/large", size=LIMIT + 1),
        Item("large, not told", f"s3://{bucket}/in/large"),
        Item("no bucket", "s3://no-such-bucket/x"),
        Item("left at home", "file:///home/me/x.jpg"),
        Item("tar is gone", "s3://x/y.tar#z", size=3, tar=f"s3://{bucket}/gone.tar", offset=512),
        Item("good again", f"s3://{bucket}/in/good"),
    ]
    reach = Reach(frozenset({"no-such-bucket"}), packed=True)
    assert [outcome(found) for _, found in fetcher.read(items, reach)] == [
        b"good",
        "not_found",
        "too_many_bytes",
        "too_many_bytes",
        "not_found",
        "not_found",
        "not_found",
        b"good",
    ]


def test_the_web_is_read_within_the_limit(store: ObjectStore) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        send(
            request,
            *{"/ok": (200, b"ok"), "/large": (200, bytes(LIMIT + 1)), "/no": (403, b"")}.get(request.path, (404, b"")),
        )

    web = WebClient(AddressPolicy(LOOPBACK, "1-65535"))
    with site(answer) as port, closing(Fetcher(store, LIMIT, web=web)) as fetcher:
        items = [Item(path, f"http://{LOOPBACK}:{port}/{path}") for path in ("ok", "large", "no", "gone")]
        found = [outcome(d) for _, d in fetcher.read(items)]
    assert found == [b"ok", "too_many_bytes", "access_denied", "not_found"]


def sequence(store: ObjectStore, name: str, *frames: bytes | None, told: bool = False) -> Item:
    """A sequence in the store; a frame of None is not there. Sizes are `told`, as of a prefix, or not, as of a row."""
    items = []
    for number, data in enumerate(frames):
        key = f"in/{name}/{number}"
        if data is not None:
            store.put(key, data)
        items.append(Item(key, f"s3://{store.bucket}/{key}", size=len(data) if told and data is not None else None))
    return Item.of_frames(f"in/{name}/", f"s3://{store.bucket}/in/{name}/", items, length=len(items))


def test_the_frames_of_a_sequence_come_together(store: ObjectStore, fetcher: Fetcher) -> None:
    store.put("in/one", b"one")
    items = [
        sequence(store, "a", b"0", b"1", b"2"),
        Item("one", f"s3://{store.bucket}/in/one"),
        sequence(store, "b", b"3", told=True),
    ]
    first, one, last = (found for _, found in fetcher.read(items))
    assert isinstance(first, tuple) and isinstance(last, tuple)
    assert [frame.data for frame in first] == [b"0", b"1", b"2"]
    assert first[1].uri == f"s3://{store.bucket}/in/a/1"
    assert (one, last[0].data) == (b"one", b"3")


def test_the_first_frame_that_cannot_be_read_speaks_for_its_sequence(store: ObjectStore, fetcher: Fetcher) -> None:
    items = [
        sequence(store, "a", b"0", None, None),
        sequence(store, "b", b"0", bytes(LIMIT + 1)),
        sequence(store, "c", b"0"),
    ]
    gone, large, fine = (found for _, found in fetcher.read(items))
    assert isinstance(gone, ImageError) and isinstance(large, ImageError) and isinstance(fine, tuple)
    assert gone.code == "not_found"
    assert str(gone).startswith(f"s3://{store.bucket}/in/a/1 was gone")
    assert large.code == "too_many_bytes"
    assert str(large).startswith(f"The frame s3://{store.bucket}/in/b/1: The file has more than the 10,000 allowed")


@pytest.mark.parametrize("told", [True, False])
def test_a_sequence_that_is_too_large_as_a_whole_is_one_error(
    store: ObjectStore, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    items = [sequence(store, "a", *[bytes(LIMIT)] * 11, told=told), sequence(store, "b", b"0", told=told)]
    read: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda key, **k: read.append(key) or get(key, **k))
    large, fine = (found for _, found in fetcher.read(items))
    assert isinstance(large, ImageError) and isinstance(fine, tuple)
    assert large.code == "too_many_bytes" and "more than 100,000 bytes together" in str(large)
    assert not told or read == ["in/b/0"], "what is known to be too large is not read"


def test_a_sequence_of_too_many_frames_is_one_error(fetcher: Fetcher) -> None:
    ((_, found),) = fetcher.read([Item.of_frames("in/", "s3://b/in/", (), length=100_001)])
    assert isinstance(found, ImageError)
    assert (found.code, "100,001 frames" in str(found)) == ("too_many_frames", True)


def test_a_silent_store_is_no_items_fault(settings: Settings) -> None:
    away = ObjectStore(settings.model_copy(update={"s3_endpoint": "127.0.0.1:1"}), patience=0.1)
    fetcher = Fetcher(away, LIMIT, threads=2, buckets=["bucket"])
    with pytest.raises(StoreUnavailable):
        list(fetcher.read([Item("x", "s3://bucket/x")]))
    fetcher.close()


def test_a_version_is_read_or_its_row_says_that_it_was_overwritten(store: ObjectStore, fetcher: Fetcher) -> None:
    # Given two objects as a listing named them, one of which is overwritten before it is read
    store.put("in/a", b"first")
    store.put("in/b", b"stays")
    listed = [
        Item(entry.key, f"s3://{store.bucket}/{entry.key}", size=entry.size, etag=entry.etag)
        for entry in store.list("in/")
    ]
    assert all(item.etag for item in listed)
    store.put("in/a", b"other")

    found = {item.key: data for item, data in fetcher.read(listed)}

    assert found["in/b"] == b"stays"
    changed = found["in/a"]
    assert isinstance(changed, ImageError)
    assert changed.code == "not_found" and "overwritten before a worker read it" in str(changed)
