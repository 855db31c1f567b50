"""Verdicts on labels: what stands, who may take it back, and that nothing is ever overwritten."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, JobConflict, ObjectDamaged
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import Batch, Named, Seen, Verdict, image_id, verdict_of
from contract.jobs.reviews.settle import settled, votes
from contract.keys.jobs import JobKeys

ROW = {"key": "a\u202e.jpg", "uri": "s3://b/a.jpg", "sha256": "0" * 64, "label": "cat", "score": 0.4, "model": "m@1"}


def newest(store: ObjectStore) -> list[Verdict]:
    """What is shown of each image."""
    return [settled(by).verdict for by in votes(verdicts.given(store, "job")).values()]


def test_the_newest_verdict_stands_until_its_giver_takes_it_back(store: ObjectStore) -> None:
    # Given two reviewers of one image,
    first = verdicts.add(store, "job", verdict_of(ROW, " dog ", by="ann"), now=100.0)
    second = verdicts.add(store, "job", verdict_of(ROW, "fox", by="bob"), now=200.0)
    (verdict,) = newest(store)
    assert (verdict.label, verdict.predicted, verdict.by, verdict.model) == ("fox", "cat", "bob", "m@1")
    # I expect nobody to take back what another said,
    with pytest.raises(JobConflict, match="only bob"):
        verdicts.withdraw(store, "job", second, by="ann")
    # and the earlier verdict to stand again once the later one is taken back, which may be done twice.
    for _ in range(2):
        assert verdicts.withdraw(store, "job", second, by="bob").label == "fox"
    assert [one.label for one in newest(store)] == ["dog"]
    verdicts.withdraw(store, "job", first, by="ann")
    assert verdicts.listed(store, "job") == []
    # Nothing was overwritten or deleted.
    assert len(list(store.list(JobKeys("job").review_prefix))) == 4


def test_verdicts_of_one_moment_are_told_in_the_order_in_which_they_were_given(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a clock that stands, and then goes back by a second, as one that is corrected does,
    ticks = iter([1_000_000_000_000_000_000] * 10 + [999_999_999_000_000_000] * 10)
    monkeypatch.setattr("time.time_ns", lambda: next(ticks))
    monkeypatch.setattr(verdicts, "_names", verdicts._Names())
    # if one person changes her mind twenty times, I expect the last word to count, and the order to be hers.
    given = [verdicts.add(store, "job", verdict_of(ROW, f"label-{n}", by="ann", now=1e9)) for n in range(20)]
    assert verdicts.listed(store, "job") == given
    assert [one.label for one in newest(store)] == ["label-19"]


def test_a_verdict_of_an_earlier_version_is_read_beside_new_ones(store: ObjectStore) -> None:
    # Names had 32 random bits after the milliseconds.
    old = Named(f"{100_000:013d}-ffffffff", verdict_of(ROW, "dog", by="ann").image)
    assert verdicts.put(store, "job", old, verdict_of(ROW, "dog", by="ann", now=100.0))
    new = verdicts.add(store, "job", verdict_of(ROW, "fox", by="ann"), now=100.001)
    assert verdicts.listed(store, "job") == [old, new]
    assert [one.label for one in newest(store)] == ["fox"]


def test_what_is_no_label_and_no_verdict_is_refused(store: ObjectStore) -> None:
    for label in ("", "  ", "x" * 1001):
        with pytest.raises(InvalidInput):
            verdict_of(ROW, label, by="ann")
    with pytest.raises(JobConflict, match="no verdict"):
        verdicts.withdraw(store, "job", Named("0" * 13 + "-" + "0" * 8, "0" * 24), by="ann")


def test_an_image_is_told_from_another_by_key_and_address() -> None:
    ids = {image_id(*pair) for pair in (("a", "b"), ("a", "c"), ("b", "b"), ("a\nb", ""), ("\ud800", "b"))}
    assert len(ids) == 5


def test_other_objects_beside_the_verdicts_are_none(store: ObjectStore) -> None:
    for name in ("x.json", f"{'0' * 24}/x.json", f"{'0' * 24}/{'0' * 13}-{'0' * 8}.txt"):
        store.put(JobKeys("job").review_prefix + name, b"{}")
    assert verdicts.listed(store, "job") == []


def test_a_verdict_that_cannot_be_read_is_named(store: ObjectStore) -> None:
    named = Named(f"{5:013d}-{'0' * 8}", "0" * 24)
    store.put(JobKeys("job").review(named.image, named.name), b'{"label": 3}')
    with pytest.raises(ObjectDamaged, match=named.name):
        list(verdicts.given(store, "job"))


def test_a_batch_that_nobody_could_read_again_is_not_written(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "_MOST_BYTES", 1000)
    seen = Seen(key="k" * 2000, uri="", sha256=None, score=0.99)
    batch = Batch(label="cat", group="all of a cluster", model="m@1", by="ann", at="2026-11-26", images=(seen,))
    with pytest.raises(JobConflict, match="too long for one verdict"):
        verdicts.add_batch(store, "animals", batch)
    assert verdicts.listed(store, "animals") == []
