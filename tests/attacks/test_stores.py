"""Stores that break S3's promises, or refuse who asks: no result is overwritten, and nobody is blamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import CredentialsRefused, InvalidSettings, StoreRefused, StoreUnavailable
from contract.settings import Settings
from producer import Client, doctor
from tests import proxy
from tests.proxy import Proxy


@contextmanager
def behind_a_proxy(settings: Settings, patience: float = 60.0) -> Iterator[tuple[Proxy, ObjectStore]]:
    with proxy.before(settings.s3_endpoint) as before:
        store = ObjectStore(settings.model_copy(update={"s3_endpoint": before.address}), patience=patience)
        with closing(store):
            yield before, store


@pytest.mark.parametrize("there", [b"", b"what was there"])
def test_a_store_that_ignores_conditions_is_refused(settings: Settings, store: ObjectStore, there: bytes) -> None:
    # Given a store that overwrites although it was told not to, and an object, or none,
    if there:
        store.put("key", there)
    with behind_a_proxy(settings) as (before, careless):
        before.drops = frozenset({"if-none-match"})

        # if I write, I expect one sentence, each time, and nothing to be overwritten.
        for _ in range(2):
            with pytest.raises(StoreRefused, match="ignores If-None-Match"):
                careless.put_if_absent("key", b"mine")
            assert store.get("key") == (there or b"mine")
            there = there or b"mine"


def test_nothing_is_submitted_to_it(settings: Settings, store: ObjectStore) -> None:
    with proxy.before(settings.s3_endpoint) as before:
        before.drops = frozenset({"if-none-match"})
        careless = settings.model_copy(update={"s3_endpoint": before.address})
        store.put("photos/koala/a.jpg", b"x")
        with closing(Client(careless)) as client, pytest.raises(StoreRefused, match="ignores If-None-Match"):
            client.train("cnn", f"s3://{settings.bucket}/photos/", name="koalas", job="careless")
        with closing(ObjectStore(careless)) as through:
            found = {check.name: check for check in doctor.check_store(through)}
    assert not found["conditional put"].ok
    assert not store.exists("active/careless")


def test_a_store_that_keeps_conditions_is_asked_once(settings: Settings) -> None:
    with behind_a_proxy(settings) as (before, store):
        asked: list[str] = []
        before.refuses = lambda method, path: asked.append(method)
        assert store.put_if_absent("once", b"first")
        assert not store.put_if_absent("once", b"second")
        assert asked.count("PUT") == 3, "one more, at the first"


def test_a_conflict_is_asked_again_and_not_taken_for_an_object(settings: Settings) -> None:
    # Given a store that answers twice that another write of the same object is under way,
    with behind_a_proxy(settings) as (before, store):
        before.refuses = lambda method, path: (
            (409, "ConditionalRequestConflict") if method == "PUT" and len(before.refused) < 2 else None
        )
        # if nobody else wrote in the end, I expect mine to be there.
        assert store.put_if_absent("key", b"mine")
        assert store.get("key") == b"mine"


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed"])
def test_what_passes_by_itself_is_waited_for(settings: Settings, store: ObjectStore, code: str) -> None:
    store.put("key", b"bytes")
    with behind_a_proxy(settings) as (before, through):
        before.refuses = lambda method, path: (403, code) if len(before.refused) < 3 else None
        assert through.get("key") == b"bytes"
        before.refused.clear()
        assert through.size("key") == 5, "a HEAD, whose answer says nothing"
        before.refused.clear()
        assert through.put_if_absent("other", b"x")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ExpiredToken", "renew the credentials"),
        ("RequestTimeTooSkewed", "clock"),
        ("InvalidAccessKeyId", "ACCESS_KEY"),
        ("SignatureDoesNotMatch", "SECRET_KEY"),
    ],
)
def test_who_is_refused_is_no_fault_of_an_object(settings: Settings, code: str, says: str) -> None:
    with behind_a_proxy(settings, patience=0.3) as (before, store):
        before.refuses = lambda method, path: (403, code)
        with pytest.raises(CredentialsRefused, match=says):
            store.get("key")
        with pytest.raises(CredentialsRefused, match=says):
            store.size("key")


def test_one_object_that_is_denied_is_told_from_that(settings: Settings) -> None:
    with behind_a_proxy(settings) as (before, store):
        before.refuses = lambda method, path: (403, "AccessDenied")
        with pytest.raises(InvalidSettings, match="bucket's policy"):
            store.get("key")


def test_half_a_body_is_read_again(settings: Settings, store: ObjectStore) -> None:
    store.put("key", bytes(100_000))
    with behind_a_proxy(settings) as (before, through):
        cut: list[str] = []

        def cuts(method: str, path: str) -> bool:
            cut.append(path)
            return method == "GET" and len(cut) < 3

        before.cuts = cuts
        assert through.get("key") == bytes(100_000)
        assert len(cut) == 3


def test_a_store_that_has_too_much_to_do_is_unavailable(settings: Settings) -> None:
    with behind_a_proxy(settings, patience=0.3) as (before, store):
        before.refuses = lambda method, path: (503, "SlowDown")
        with pytest.raises(StoreUnavailable, match="SlowDown"):
            store.get("key")
