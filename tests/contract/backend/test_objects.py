"""The object store's promises, on a real S3 server."""

import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

from contract.backend.objects import ObjectStore
from contract.errors import (
    CredentialsRefused,
    InvalidSource,
    ObjectNotFound,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from contract.settings import Settings
from tests import proxy
from tests.halves import half_written

ODD_KEYS = [
    "with space.jpg",
    "plus+plus.jpg",
    "per%20cent.jpg",
    "100%.jpg",
    "hash#tag.jpg",
    "what?.jpg",
    "ünï-日本.jpg",
    "a&b;c.jpg",
]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_survive_a_round_trip(store: ObjectStore, key: str) -> None:
    store.put(f"odd/{key}", key.encode())
    assert store.get(f"odd/{key}") == key.encode()
    assert [e.key for e in store.list(f"odd/{key[:3]}") if e.key == f"odd/{key}"] == [f"odd/{key}"]


def test_only_the_first_of_two_writers_writes(store: ObjectStore) -> None:
    assert store.put_if_absent("once", b"first")
    assert not store.put_if_absent("once", b"second")
    assert store.get("once") == b"first"


@pytest.mark.parametrize("write", ["put", "put_if_absent"])
@pytest.mark.parametrize("before", [b"", b"old"])
def test_half_a_write_is_none(store: ObjectStore, write: str, before: bytes) -> None:
    # Given an object, or none, and a writer whose connection ends between the head and the body of its request,
    # as that of one that is killed does,
    if before:
        store.put("key", before)
    store.put_if_absent("other", b"")  # after which each write is one request

    # if the store has answered,
    with half_written("key") as halves, suppress(StoreRefused, StoreUnavailable):
        getattr(store, write)("key", b"whole")
    assert halves

    # I expect what there was before.
    assert store.exists("key") == bool(before)
    assert not before or store.get("key") == before

    # The next one writes where nothing was, and the one after is refused.
    assert store.put_if_absent("key", b"whole") == (not before)
    assert not store.put_if_absent("key", b"other")
    assert store.get("key") == (before or b"whole")


def test_what_is_meant_to_be_empty_is_written_once_too(store: ObjectStore) -> None:
    assert store.put_if_absent("empty", b"")
    assert not store.put_if_absent("empty", b"")


def test_ranges_and_limits(store: ObjectStore) -> None:
    store.put("range", b"0123456789")
    assert store.get("range", offset=2, length=3) == b"234"
    assert store.get("range", limit=4) == b"01234", "one byte more than the limit tells that there is more"
    assert store.size("range") == 10


@pytest.mark.parametrize("listens", [False, True])
def test_a_range_is_whole_in_however_many_pieces_it_comes(settings: Settings, listens: bool) -> None:
    # Given an object that is longer than what is read at once, and a store that may be listened to,
    heard: list[None] = []
    whole = bytes(range(251)) * 80_000
    with closing(ObjectStore(settings, heard=partial(heard.append, None) if listens else None)) as store:
        store.put("long", whole)

        # I expect each range of it, also one that reaches beyond its end, and all of it.
        for offset, length in ((0, 3), (7, 2**20), (5, 17 * 2**20), (1, len(whole)), (len(whole) - 9, 100)):
            assert store.get("long", offset=offset, length=length) == whole[offset : offset + length]
        assert store.get("long") == whole
        assert store.get("long", offset=3, limit=10) == whole[3:14]
    assert len(heard) > 40 if listens else not heard


def test_pieces_are_the_whole(store: ObjectStore) -> None:
    store.put("pieces", bytes(range(100)))
    assert b"".join(store.pieces("pieces", size=7)) == bytes(range(100))


def test_a_listing_goes_on_over_its_pages(store: ObjectStore) -> None:
    wanted = [f"many/{n:05d}" for n in range(1203)]
    for key in wanted:
        store.put(key, b"")
    assert [e.key for e in store.list("many/")] == wanted
    assert [e.key for e in store.list("many/", after="many/01199")] == wanted[1200:]
    assert [e.key for e in store.list("", folders=True)] == ["many/"]


def test_large_files_go_up_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(range(256)) * 4096 * 24)
    store.put_file("large", file)
    assert store.size("large") == file.stat().st_size
    assert b"".join(store.pieces("large", size=10**7)) == file.read_bytes()


def test_what_is_not_there_is_said(store: ObjectStore) -> None:
    with pytest.raises(ObjectNotFound, match=r"s3://.*/nothing"):
        store.get("nothing")
    assert not store.exists("nothing")
    store.delete("nothing")
    with pytest.raises(InvalidSource, match="no bucket 'no-such-bucket'"):
        store.get("x", bucket="no-such-bucket")


def test_wrong_credentials_are_said_and_not_shown(settings: Settings) -> None:
    wrong = settings.model_copy(update={"s3_secret_key": SecretStr("wrong-secret")})
    with closing(ObjectStore(wrong)) as store, pytest.raises(CredentialsRefused, match="SECRET_KEY") as caught:
        store.get("x")
    assert "wrong-secret" not in str(caught.value)


def test_a_silent_store_is_one_sentence(settings: Settings) -> None:
    away = ObjectStore(settings.model_copy(update={"s3_endpoint": "127.0.0.1:1"}), patience=0.2)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
        away.get("x")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(507, "XMinioStorageFull", "XMinioStorageFull"), (507, "", "HTTP 507"), (403, "QuotaExceeded", "QuotaExceeded")],
)
def test_a_store_without_room_is_one_sentence_at_once(
    settings: Settings, tmp_path: Path, status: int, code: str, said: str
) -> None:
    (tmp_path / "file").write_bytes(b"data")
    with proxy.before(settings.s3_endpoint) as full:
        full.refuses = lambda method, path: (status, code) if method == "PUT" else None
        there = settings.model_copy(update={"s3_endpoint": full.address})
        with closing(ObjectStore(there, patience=60.0)) as store:
            for write in (
                lambda: store.put("a", b"data"),
                lambda: store.put_file("a", tmp_path / "file"),
                lambda: store.put_if_absent("a", b"data"),
            ):
                with pytest.raises(StoreFull, match=rf"no room for s3://.*/a \({said}\); make room, then"):
                    write()
            assert len(full.refused) == 3, "it was not asked again"


def test_a_store_that_fails_every_write_may_be_full_and_one_that_was_away_is_not(settings: Settings) -> None:
    with proxy.before(settings.s3_endpoint) as failing:
        there = settings.model_copy(update={"s3_endpoint": failing.address})
        with closing(ObjectStore(there, patience=0.5)) as store:
            failing.refuses = lambda method, path: (500, "InternalError")
            with pytest.raises(StoreFull, match="its disk may be full"):
                store.put("a", b"data")
            with pytest.raises(StoreUnavailable):
                store.get("a")
            failing.refuses = lambda method, path: (500, "InternalError") if failing.refused[3:] else (503, "SlowDown")
            failing.refused.clear()
            with pytest.raises(StoreUnavailable):
                store.put("a", b"data")


def test_uploads_that_nobody_completed_are_aborted(store: ObjectStore) -> None:
    # Given five uploads of parts, one key twice, listed by pages of two,
    keys = ["in/a.tar", "in/a.tar", "in/b c.tar", "in/ü.tar", "out/d.tar"]
    for key in keys:
        upload = store._minio._create_multipart_upload(store.bucket, key, {})
        store._minio._upload_part(store.bucket, key, b"part", None, upload, 1)
    later = time.time() + 60
    # I expect young ones to stay, a dry run to change nothing, and then all to be gone.
    assert store.abort_uploads(time.time() - 60, page=2) == []
    assert sorted(store.abort_uploads(later, dry_run=True, page=2)) == keys
    assert sorted(store.abort_uploads(later, page=2)) == keys
    assert store.abort_uploads(later, page=2) == []
