"""Cleaning up uploads ends in time, and asks for no claim that would refuse a job in vain."""

from __future__ import annotations

from contract.jobs.unused import expire_uploads
from contract.keys.uploads import upload_claim
from tests.contract.backend.test_uploads import PLACE, PREFIX, uploaded


def test_it_ends_when_its_time_is_over() -> None:
    store = uploaded()
    assert list(expire_uploads(store, 7.0, seconds=-1.0)) == []
    (found,) = expire_uploads(store, 7.0, seconds=60.0)
    assert (found.what, found.objects) == ("unused upload", 2)


def test_an_upload_to_which_a_file_came_late_is_not_claimed() -> None:
    store = uploaded()
    store.now = 10**11
    store.put(f"{PREFIX}late.jpg", b"x")
    claimed: list[str] = []
    store.put_if_absent = lambda key, *_: claimed.append(key)
    assert list(expire_uploads(store, 7.0)) == []
    assert upload_claim(PLACE) not in claimed
