"""Sets of reviews: the same verdicts are the same set, and later ones change none that was pinned."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import InvalidSource, ObjectDamaged
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import verdict_of
from contract.jobs.reviews.sets import Ref, parse_ref, pin, read_set
from contract.keys.jobs import JobKeys


def say(store: ObjectStore, key: str, label: str, by: str = "ann") -> None:
    row = {"key": key, "uri": f"s3://b/{key}", "sha256": "0" * 64, "label": "cat", "score": 0.4, "model": "m@1"}
    verdicts.add(store, "job", verdict_of(row, label, by=by))


def labels(store: ObjectStore, ref: Ref) -> dict[str, str]:
    return {one.key: one.label for one in read_set(store, ref)}


def test_a_set_stays_what_it_was_while_people_go_on(store: ObjectStore) -> None:
    # Given an image on which two agree, one with a single verdict, and one that is disputed,
    for by in ("ann", "bob"):
        say(store, "a.jpg", "dog", by)
        say(store, "c.jpg", by, by)
    say(store, "b\u2028é.jpg", "cat")
    first = pin(store, Ref("job"))
    # I expect the first two,
    assert labels(store, first) == {"a.jpg": "dog", "b\u2028é.jpg": "cat"}
    assert [one.by for one in read_set(store, first)] == [("ann", "bob"), ("ann",)]
    # the same set as long as nobody says anything else,
    say(store, "a.jpg", "dog", "bob")
    assert pin(store, Ref("job")) == first
    # and another one then, while the first can still be read.
    say(store, "c.jpg", "ann", "bob")
    second = pin(store, Ref("job"))
    assert labels(store, second) == {**labels(store, first), "c.jpg": "ann"}
    assert pin(store, first) == first and len(list(store.list(JobKeys("job").reviewed_prefix))) == 2


def test_without_a_label_that_counts_there_is_no_set(store: ObjectStore) -> None:
    with pytest.raises(InvalidSource, match=r"Nobody has reviewed job yet; .*/console/jobs/job/review"):
        pin(store, Ref("job"))
    say(store, "a.jpg", "dog", "ann")
    say(store, "a.jpg", "cat", "bob")
    with pytest.raises(InvalidSource, match="agree on none of the 1 images"):
        pin(store, Ref("job"))
    with pytest.raises(InvalidSource, match="no set 'ffffffffffffffff'"):
        pin(store, Ref("job", "f" * 16))
    assert not list(store.list(JobKeys("job").reviewed_prefix))


def test_a_set_that_was_changed_is_not_read(store: ObjectStore) -> None:
    say(store, "a.jpg", "dog")
    ref = pin(store, Ref("job"))
    store.put(JobKeys("job").reviewed(ref.digest), b"{}\n")
    with pytest.raises(ObjectDamaged, match="not what was written"):
        list(read_set(store, ref))


@pytest.mark.parametrize("text", ["", "../x", "job@", "job@FF", "job@" + "f" * 17, "Job", "job/x"])
def test_what_names_no_set(text: str) -> None:
    assert parse_ref(text) is None
