"""The console holds a bounded number of verdicts, whichever jobs are reviewed."""

from __future__ import annotations

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import JobConflict
from contract.jobs.reviews import verdicts
from producer.web.console.reviews import queues
from producer.web.console.reviews.queues import Queues
from tests.contract.jobs.reviews.test_memory import verdict


def held(found: Queues) -> dict[str, int]:
    return {job: sum(map(len, known.values())) for job, known in found._verdicts._values.items()}


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
        assert len(made.votes(store, job)) == number
    assert held(made) == {"b": 3, "c": 5}
    # to be read again when it is asked for, and nothing to be held of one that has more than fits.
    assert len(made.votes(store, "a")) == 6
    assert held(made) == {"a": 6}
    with pytest.raises(JobConflict, match="more than 10 verdicts"):
        made.votes(store, "d")
    with pytest.raises(JobConflict, match="more than 10 verdicts"):
        made.reviewed(store, "d")
    assert sum(held(made).values()) <= 10
