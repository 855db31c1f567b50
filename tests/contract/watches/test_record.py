"""The record of a watch: its intervals, identities and names of jobs."""

from __future__ import annotations

import re

import pytest

from contract.errors import InvalidWatch
from contract.jobs.specs import JOB_ID
from contract.jobs.templates import Template
from contract.watches.record import Overwrites, Watch, Watches, parse_every


def made(name: str = "camera", *, overwrites: Overwrites = "ignore") -> Watch:
    return Watch(
        name=name,
        source="s3://photos/in/",
        every=5.0,
        overwrites=overwrites,
        created_at="2026-11-26T08:30:12.345Z",
        template=Template(spec={"kind": "classify", "model": "lite0"}),
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


def test_the_longest_name_still_gives_ids_of_jobs() -> None:
    assert re.fullmatch(JOB_ID, made("x" * Watches.longest).job(999_999))


def test_an_overwritten_object_is_another_one_only_if_overwrites_count() -> None:
    # Given two versions of an object, I expect one identity where overwrites are ignored, and two where they are not.
    ignore, again = made(), made(overwrites="again")
    assert ignore.identity("a.jpg", "1") == ignore.identity("a.jpg", "2")
    assert again.identity("a.jpg", "1") != again.identity("a.jpg", "2")
    # The parts of an identity cannot be mistaken for each other.
    assert again.identity("a", "b1") != again.identity("ab", "1")


def test_a_watch_added_again_begins_anew_even_within_the_same_second() -> None:
    later = made().model_copy(update={"created_at": "2026-11-26T08:30:12.346Z"})
    assert made().root == "watches/camera/20261126t083012345/"
    assert later.root == "watches/camera/20261126t083012346/"
    assert later.root != made().root and later.job(1) != made().job(1)
