"""Verdicts on labels: what stands, who may take it back, and that nothing is ever overwritten."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput, JobConflict
from contract.jobs import reviews
from contract.keys import JobKeys

ROW = {"key": "a\u202e.jpg", "uri": "s3://b/a.jpg", "sha256": "0" * 64, "label": "cat", "score": 0.4, "model": "m@1"}


def test_the_newest_verdict_stands_until_its_giver_takes_it_back(store: ObjectStore) -> None:
    # Given two reviewers of one image,
    first = reviews.add(store, "job", reviews.verdict_of(ROW, " dog ", by="ann"), now=100.0)
    second = reviews.add(store, "job", reviews.verdict_of(ROW, "fox", by="bob"), now=200.0)
    (verdict,) = reviews.verdicts(store, "job")
    assert (verdict.label, verdict.predicted, verdict.by, verdict.model) == ("fox", "cat", "bob", "m@1")
    # I expect nobody to take back what another said,
    with pytest.raises(JobConflict, match="only bob"):
        reviews.withdraw(store, "job", second, by="ann")
    # and the earlier verdict to stand again once the later one is taken back, which may be done twice.
    for _ in range(2):
        assert reviews.withdraw(store, "job", second, by="bob").label == "fox"
    assert [one.label for one in reviews.verdicts(store, "job")] == ["dog"]
    reviews.withdraw(store, "job", first, by="ann")
    assert reviews.standing(store, "job") == {}
    # Nothing was overwritten or deleted.
    assert len(list(store.list(JobKeys("job").review_prefix))) == 4


def test_what_is_no_label_and_no_verdict_is_refused(store: ObjectStore) -> None:
    for label in ("", "  ", "x" * 1001):
        with pytest.raises(InvalidInput):
            reviews.verdict_of(ROW, label, by="ann")
    with pytest.raises(JobConflict, match="no verdict"):
        reviews.withdraw(store, "job", reviews.Named("0" * 13 + "-" + "0" * 8, "0" * 24), by="ann")


def test_an_image_is_told_from_another_by_key_and_address() -> None:
    ids = {reviews.image_id(*pair) for pair in (("a", "b"), ("a", "c"), ("b", "b"), ("a\nb", ""), ("\ud800", "b"))}
    assert len(ids) == 5


def test_other_objects_beside_the_verdicts_are_none(store: ObjectStore) -> None:
    for name in ("x.json", f"{'0' * 24}/x.json", f"{'0' * 24}/{'0' * 13}-{'0' * 8}.txt"):
        store.put(JobKeys("job").review_prefix + name, b"{}")
    assert reviews.standing(store, "job") == {}
