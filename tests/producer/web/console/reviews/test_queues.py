"""The console holds a bounded number of verdicts, whichever jobs are reviewed."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import JobConflict
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import Given, Named, verdict_of
from contract.jobs.reviews.tally import Tally
from contract.jobs.status import Status
from producer.web.console.reviews import queues
from producer.web.console.reviews.queues import Queues
from tests.contract.jobs.reviews.test_memory import verdict
from tests.producer.web.console.rows import commit_rows


def held(found: Queues) -> dict[str, int]:
    return {job: sum(map(len, read.known.values())) for job, read in found._verdicts._values.items()}


def images(found: Queues, store: ObjectStore, job: str) -> set[str]:
    """The images that somebody reviewed."""
    with found.tally(store, job) as tally:
        return tally.not_by("nobody")


def test_the_verdicts_of_the_jobs_that_were_looked_at_last_are_held(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MOST_VERDICTS", 10)
    for job, number in (("a", 6), ("b", 3), ("c", 5), ("d", 11)):
        for n in range(number):
            verdicts.add(store, job, verdict(n))
    made = Queues()
    # If three jobs are looked at, I expect the first one to make room for the third,
    for job, number in (("a", 6), ("b", 3), ("c", 5)):
        assert len(images(made, store, job)) == number
    assert held(made) == {"b": 3, "c": 5}
    # to be read again when it is asked for, and nothing to be held of one that has more than fits.
    assert len(images(made, store, "a")) == 6
    assert held(made) == {"a": 6}
    with pytest.raises(JobConflict, match="more than 10 verdicts"):
        images(made, store, "d")
    with pytest.raises(JobConflict, match="more than 10 verdicts"):
        made.reviewed(store, "d")
    assert sum(held(made).values()) <= 10


def test_the_verdicts_of_a_large_job_are_not_listed_for_each_page(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a job with more verdicts than a store lists in one answer, and a clock,
    monkeypatch.setattr(queues, "AT_ONCE", 4)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    made, listings = Queues(), []
    listed = verdicts.listed
    monkeypatch.setattr(verdicts, "listed", lambda *args: listings.append(args) or listed(*args))
    given = [verdicts.add(store, "job", verdict(n)) for n in range(6)]
    there = {one.image for one in given}
    assert images(made, store, "job") == there and given[0].image in made.reviewed(store, "job")
    assert len(listings) == 1
    # if this process writes a verdict and takes another back, I expect both to be known at once,
    own = verdicts.add(store, "job", verdict(6))
    made.gave("job", own)
    verdicts.withdraw(store, "job", given[0], by=verdict(0).by)
    made.withdrew("job", given[0])
    kept = there - {given[0].image} | {own.image}
    assert images(made, store, "job") == kept and given[0].image not in made.reviewed(store, "job")
    # and what another process writes once the listing is old: a second for each answer of the store.
    other = verdicts.add(store, "job", verdict(7))
    assert images(made, store, "job") == kept
    assert len(listings) == 1
    now[0] = 1.6
    assert images(made, store, "job") == kept | {other.image}
    assert len(listings) == 2


def test_a_listing_is_not_kept_if_a_verdict_came_while_it_was_made(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "AT_ONCE", 0.5)
    made = Queues()
    verdicts.add(store, "job", verdict(0))
    listed = verdicts.listed

    def slowly(store: ObjectStore, job: str) -> list[Named]:
        found = listed(store, job)
        made.gave(job, verdicts.add(store, job, verdict(1)))
        return found

    monkeypatch.setattr(verdicts, "listed", slowly)
    assert len(images(made, store, "job")) == 1
    monkeypatch.setattr(verdicts, "listed", listed)
    assert len(images(made, store, "job")) == 2


def test_a_verdict_that_was_listed_before_it_was_noted_goes_with_its_undo(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "AT_ONCE", 0.01)
    made = Queues()
    verdicts.add(store, "job", verdict(0))
    # Given a verdict that another thread lists once it is written, and before it is noted,
    own = verdicts.add(store, "job", verdict(1))
    assert len(images(made, store, "job")) == 2
    made.gave("job", own)
    # if it is taken back, I expect it to count no longer.
    verdicts.withdraw(store, "job", own, by=verdict(1).by)
    made.withdrew("job", own)
    assert own.image not in made.reviewed(store, "job")
    assert len(images(made, store, "job")) == 1


def test_only_what_is_new_is_counted_whatever_was_taken_back_meanwhile(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "AT_ONCE", 0.01)
    made, changes = Queues(), []
    change = Tally.change

    def noted(self: Tally, added: Iterable[Given], removed: Iterable[Given] = ()) -> None:
        added, removed = list(added), list(removed)
        changes.append((len(added), len(removed)))
        change(self, added, removed)

    monkeypatch.setattr(Tally, "change", noted)

    def give(number: int) -> Named:
        named = verdicts.add(store, "job", verdict(number))
        made.gave("job", named)
        return named

    def take_back(named: Named) -> None:
        verdicts.withdraw(store, "job", named, by=verdict(0).by)
        made.withdrew("job", named)

    def counted(*given: Named) -> tuple[int, int]:
        """Count, compare with all that stands, and return how many were added and removed."""
        assert images(made, store, "job") == {one.image for one in given}
        assert made.reviewed(store, "job") == {one.image for one in given}
        return changes[-2]

    first = [verdicts.add(store, "job", verdict(n)) for n in range(3)]
    assert counted(*first) == (3, 0)
    # If one is given, one of before taken back, and one given and taken back, I expect two changes, and then none.
    new, brief = give(3), give(4)
    take_back(first[0])
    take_back(brief)
    assert counted(*first[1:], new) == (1, 1)
    assert counted(*first[1:], new) == (0, 0)


def test_a_job_that_ended_again_is_reviewed_by_its_rows_of_now(store: ObjectStore) -> None:
    def ended(score: float, day: int) -> Status:
        top = [{"label": "cat", "label_index": 0, "score": score}]
        commit_rows(store, "job", [{"key": "a", "label": "cat", "score": score, "top_k": top}])
        told = {"id": "job", "kind": "classify", "state": "succeeded", "model": "m@1", "source": "photos"}
        times = {"created_at": "2026-11-24T04:00:00.000Z", "finished_at": f"2026-11-{day}T05:00:00.000Z"}
        return Status.model_validate({**told, **times})

    made = Queues()
    verdicts.add(store, "job", verdict_of({"key": "a", "uri": f"s3://{store.bucket}/photos/a"}, "dog", by="ann"))
    for score, day in ((0.5, 24), (0.75, 25)):
        (doubt,) = made.waiting(store, ended(score, day), "margin", "second", "bob").doubts
        assert doubt.row["score"] == score
