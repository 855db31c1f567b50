"""Annotations of Label Studio become verdicts: each version once, the newest counts, and what is gone is taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import Named, verdict_of
from contract.jobs.reviews.settle import settled, votes
from producer.jobs.import_report import ImportReport
from producer.jobs.import_reviews import bring
from producer.jobs.label_studio import Annotation, Event
from tests.producer.web.console.rows import commit_rows

NOW = 1_800_000_000.0
ONE = Annotation("17", "a", "", "label-studio:3", NOW - 100, "dog")


@pytest.fixture(autouse=True)
def rows(store: ObjectStore) -> None:
    top = [{"label": "cat", "label_index": 0, "score": 0.4}]
    row = {"label": "cat", "score": 0.4, "top_k": top, "sha256": "0" * 64, "model": "m@1"}
    failed = {"key": "f", "status": "error", "error_code": "truncated"}
    commit_rows(store, "job", [{**row, "key": "a"}, {**row, "key": "b"}, failed], shard=0)
    # Two images have the same key.
    twice = [{**row, "key": "c", "uri": f"s3://{store.bucket}/{n}/c"} for n in (1, 2)]
    commit_rows(store, "job", twice, shard=1)


def given(store: ObjectStore, *said: Annotation, by: str = "ann") -> ImportReport:
    return bring(store, "job", Event(given=said), by=by, now=NOW)


def labels(store: ObjectStore) -> dict[str, str]:
    found = votes(verdicts.given(store, "job")).values()
    return {settled(by).verdict.uri.partition("/photos/")[2]: settled(by).verdict.label for by in found}


def test_who_and_when_are_kept_and_the_same_again_changes_nothing(store: ObjectStore) -> None:
    assert given(store, ONE).added == 1
    (one,) = verdicts.given(store, "job")
    verdict = one.verdict
    assert (verdict.by, verdict.at, verdict.label) == ("label-studio:3", "2027-01-15T07:58:20.000Z", "dog")
    assert verdict.score == pytest.approx(0.4)
    assert (verdict.predicted, verdict.model, verdict.sha256) == ("cat", "m@1", "0" * 64)
    assert (verdict.annotation, verdict.imported_by) == ("17", "ann")
    # If somebody else brings it once more, I expect nothing new.
    again = given(store, ONE, by="bob")
    assert (again.annotations, again.added, again.known) == (1, 0, 1)
    assert list(verdicts.given(store, "job")) == [one]


def test_a_newer_version_takes_the_place_of_the_one_before(store: ObjectStore) -> None:
    newer = replace(ONE, at=NOW - 50, label="fox", by="label-studio:ann@example.org")
    # In either order, and in one file.
    assert given(store, ONE, newer, ONE).added == 1 and labels(store) == {"a": "fox"}
    assert given(store, ONE).known == 1 and labels(store) == {"a": "fox"}
    newest = replace(newer, at=NOW - 20, label="emu")
    found = given(store, newest, by="bob")
    assert (found.added, found.withdrawn) == (1, 1)
    assert [one.verdict.label for one in verdicts.given(store, "job")] == ["emu"]


def test_deleted_and_skipped_annotations_are_taken_back(store: ObjectStore) -> None:
    other = replace(ONE, id="18", key="b")
    given(store, ONE, other)
    # A verdict of the console that has a like name is no annotation.
    row = {"key": "a", "uri": f"s3://{store.bucket}/photos/a", "label": "cat"}
    stem = next(one.named.name[-8:] for one in verdicts.given(store, "job") if one.verdict.annotation == "17")
    own = verdict_of(row, "emu", by="ann")
    assert verdicts.put(store, "job", Named(f"{1:013d}-{stem}", own.image), own)
    assert bring(store, "job", Event(deleted=("17", "99")), by="bob", now=NOW).withdrawn == 1
    assert labels(store) == {"a": "emu", "b": "dog"}
    # It does not come back with an old export.
    assert given(store, ONE).known == 1 and labels(store) == {"a": "emu", "b": "dog"}
    # Nor does a skip of before undo what was said since.
    skipped = replace(other, label="", why="it was skipped")
    assert given(store, replace(skipped, at=NOW - 101)).withdrawn == 0 and labels(store) == {"a": "emu", "b": "dog"}
    found = given(store, replace(skipped, at=NOW))
    assert (found.withdrawn, found.unclear) == (1, 1) and labels(store) == {"a": "emu"}


def test_a_newer_version_without_a_single_label_takes_the_one_before_back(store: ObjectStore) -> None:
    given(store, ONE)
    found = given(store, replace(ONE, label="", why="it has several choices, or none", at=NOW - 50))
    assert (found.added, found.withdrawn, found.unclear) == (0, 1, 1) and labels(store) == {}
    # The version before does not come back with an old export, and the next one counts.
    assert given(store, ONE).known == 1 and labels(store) == {}
    assert given(store, replace(ONE, label="fox", at=NOW - 20)).added == 1 and labels(store) == {"a": "fox"}


def test_an_older_event_that_comes_late_brings_no_label_back(store: ObjectStore) -> None:
    other = replace(ONE, id="18", key="b")
    # Given an annotation that lost its label, and one that was deleted, before their labels came,
    given(store, replace(ONE, label="", why="it has no choice", at=NOW - 50))
    bring(store, "job", Event(deleted=("18",)), by="ann", now=NOW)
    # I expect that labels from before are known and count for nothing,
    assert given(store, ONE, other).known == 2
    assert given(store, replace(other, at=NOW + 1)).known == 1 and labels(store) == {}
    # also if several older versions come, in any order,
    for at in (NOW - 60, NOW - 90):
        assert given(store, replace(ONE, at=at, label="fox")).known == 1
    assert labels(store) == {}
    # and that a newer one counts, as it does of a number that is given out again later.
    assert given(store, replace(ONE, label="emu", at=NOW - 40)).added == 1
    again = Event(given=(replace(other, label="emu", at=NOW + 3600),))
    assert bring(store, "job", again, by="ann", now=NOW + 3600).added == 1
    assert labels(store) == {"a": "emu", "b": "emu"}


@pytest.mark.parametrize("late", [Event(given=(replace(ONE, label="", at=NOW - 50),)), Event(deleted=("17",))])
def test_of_two_events_at_once_the_newer_one_wins(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, late: Event
) -> None:
    # Given a label whose event has been looked up, and not yet written,
    put = verdicts.put

    def meanwhile(*args: Any) -> bool:
        monkeypatch.setattr(verdicts, "put", put)
        bring(store, "job", late, by="ann", now=NOW)
        return put(*args)

    monkeypatch.setattr(verdicts, "put", meanwhile)
    # if a newer event comes and goes, I expect the label to count for nothing.
    given(store, ONE)
    assert labels(store) == {}


def test_a_newer_label_that_comes_meanwhile_stands(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put = verdicts.put

    def meanwhile(*args: Any) -> bool:
        monkeypatch.setattr(verdicts, "put", put)
        given(store, replace(ONE, label="fox", at=NOW - 50))
        return put(*args)

    monkeypatch.setattr(verdicts, "put", meanwhile)
    given(store, ONE)
    assert [one.verdict.label for one in verdicts.given(store, "job")] == ["fox"]


def test_what_says_no_label_at_an_impossible_time_takes_nothing_back(store: ObjectStore) -> None:
    given(store, ONE)
    found = given(store, replace(ONE, label="", why="it was skipped", at=NOW + 301))
    assert found.unclear_named == ("a: annotation 17, its time is before 1970 or ahead of ours",)
    assert (found.withdrawn, labels(store)) == (0, {"a": "dog"})
    assert given(store, replace(ONE, label="fox", at=NOW - 50)).added == 1


def test_tasks_are_found_by_address_and_by_a_key_that_one_image_has(store: ObjectStore) -> None:
    address = f"s3://{store.bucket}/2/c"
    said = [
        replace(ONE, id="1", key="c"),
        replace(ONE, id="2", key="c", uri="https://elsewhere/presigned?x=1"),
        replace(ONE, id="3", key="c", uri=address),
        replace(ONE, id="4", key="", uri=f"s3://{store.bucket}/photos/b"),
        replace(ONE, id="5", key="f"),
        replace(ONE, id="6", key="nowhere", uri=address),
        replace(ONE, id="7", key="", uri=""),
    ]
    found = given(store, *said)
    assert (found.added, found.unknown) == (2, 5)
    assert found.unknown_named == ("c", "c", "f", "nowhere", "annotation 7")
    assert {one.verdict.uri for one in verdicts.given(store, "job")} == {address, f"s3://{store.bucket}/photos/b"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"label": "x" * 1001}, "its label cannot be one"),
        ({"label": "\ud800"}, "its label cannot be one"),
        ({"at": NOW + 301}, "its time is before 1970 or ahead of ours"),
        ({"at": -5.0}, "its time is before 1970 or ahead of ours"),
        ({"label": "", "why": "it has no choice"}, "it has no choice"),
    ],
)
def test_what_cannot_be_a_verdict_is_named_and_holds_up_no_other(
    store: ObjectStore, changes: dict[str, object], why: str
) -> None:
    found = given(store, replace(ONE, **changes), replace(ONE, id="18", key="b"))  # type: ignore[arg-type]
    assert (found.added, found.unclear) == (1, 1) and found.unclear_named == (f"a: annotation 17, {why}",)
