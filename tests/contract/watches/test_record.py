"""The record of a watch: its names, intervals and identities, and the record in the bucket."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidWatch, NotOwner, UnknownWatch
from contract.jobs.specs import JOB_ID
from contract.jobs.templates import Template
from contract.watches.record import Overwrites, Watch, Watches, check_name, parse_every


def made(name: str = "camera", *, overwrites: Overwrites = "ignore", owner: str = "") -> Watch:
    return Watch(
        name=name,
        source="s3://photos/in/",
        every=5.0,
        overwrites=overwrites,
        created_at="2026-11-26T08:30:12.345Z",
        template=Template(spec={"kind": "classify", "model": "lite0"}),
        owner=owner,
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("5s", 5.0), ("0.1s", 0.1), ("2m", 120.0), ("1h", 3600.0), ("24h", 86400.0)]
)
def test_an_interval_is_written_with_its_unit(text: str, seconds: float) -> None:
    assert parse_every(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "0s", "50ms", "25h", "-1s", "5 s", "", "5sec", "1e3s"])
def test_any_other_interval_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidWatch, match="write it as 500ms, 5s, 2m or 1h"):
        parse_every(text)


@pytest.mark.parametrize("name", ["", "-a", "Camera", "a/b", "a.b", "x" * 33])
def test_a_name_that_no_key_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidWatch):
        check_name(name)


def test_the_longest_name_still_gives_ids_of_jobs() -> None:
    import re

    assert re.fullmatch(JOB_ID, made("x" * 32).job(999_999))


def test_an_overwritten_object_is_another_one_only_if_overwrites_count() -> None:
    # Given two versions of an object, I expect one identity where overwrites are ignored, and two where they are not.
    ignore, again = made(), made(overwrites="again")
    assert ignore.identity("a.jpg", "1") == ignore.identity("a.jpg", "2")
    assert again.identity("a.jpg", "1") != again.identity("a.jpg", "2")
    # The parts of an identity cannot be mistaken for each other.
    assert again.identity("a", "b1") != again.identity("ab", "1")


def test_a_watch_added_again_begins_anew() -> None:
    later = made().model_copy(update={"created_at": "2026-11-26T08:30:13.000Z"})
    assert made().root == "watches/camera/20261126t083012/"
    assert later.root != made().root and later.job(1) != made().job(1)


def test_a_record_is_written_once_and_found_by_name(store: ObjectStore) -> None:
    watches = Watches(store)
    with pytest.raises(UnknownWatch, match="nor any other"):
        watches.get("camera")
    watches.add(made())
    watches.add(made())  # the answer to the first write was lost
    with pytest.raises(InvalidWatch, match="already"):
        watches.add(made(overwrites="again"))
    # What a watch writes lies beside its record, and is none.
    store.put("watches/camera/20261126t083012/segments/000001.json", b"{}")
    assert watches.names() == ["camera"]
    assert watches.get("camera") == made()
    with pytest.raises(UnknownWatch, match="camera"):
        watches.get("camra")


def test_only_its_owner_changes_a_watch(store: ObjectStore) -> None:
    watches = Watches(store)
    watches.add(made(owner="ann@lab"))
    assert watches.owned("camera", "ann@lab").owner == "ann@lab"
    with pytest.raises(NotOwner, match="belongs to ann@lab"):
        watches.owned("camera", "bob@lab")


def test_a_record_that_cannot_be_read_says_what_to_do(store: ObjectStore) -> None:
    store.put("watches/camera.json", b'{"name": "camera", "from": "the future"}')
    with pytest.raises(InvalidWatch, match="remove it and add it again"):
        Watches(store).get("camera")
