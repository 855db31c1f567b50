"""A server holds the verdicts of whole jobs, so one is small, and still says all that was said."""

from __future__ import annotations

import gc
import secrets
import tracemalloc

import pytest

from contract.backend.objects import ObjectStore
from contract.errors import JobConflict
from contract.jobs.reviews import verdicts
from contract.jobs.reviews.records import MANY, Batch, Given, Named, Seen, Verdict


def verdict(number: int, **more: object) -> Verdict:
    key = f"2026/11/{number:06d}.jpg"
    said = {"label": "koala", "predicted": "wombat", "score": 0.5123, "model": "efficientnet-lite0@1", "by": "ann"}
    where = {"key": key, "uri": f"s3://pictures/photos/{key}", "sha256": secrets.token_hex(32)}
    return Verdict.model_validate({**where, **said, "at": "2026-11-26T00:00:00.000Z", **more})


def test_a_verdict_that_is_held_is_small() -> None:
    number, held = 2000, {}
    Given.of(Named("0" * 22, "0" * 24), verdict(0))  # what is made once is no cost of each
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(number):
            made = verdict(n)
            named = Named(f"{1_795_600_000_000 + n:013d}-{secrets.token_hex(4)}", made.image)
            held[named] = (Given.of(named, made),)
            del made
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 630 bytes each, where the records themselves took 1,870.
    assert (after - before) / number < 900


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"predicted": None, "score": None, "sha256": None, "model": None},
        {"label": "Bär \u202e", "by": "jörg", "annotation": "7", "imported_by": "eve"},
        {"key": "k" * 5000},
    ],
)
def test_nothing_of_it_is_lost(more: dict[str, object]) -> None:
    made = verdict(1, **more)
    found = Given.of(Named("0" * 22, made.image), made)
    assert found.verdict == made
    assert (found.image, found.by, found.label, found.predicted) == (made.image, made.by, made.label, made.predicted)
    assert Given.of(Named("0" * 22, MANY), made).image == made.image


def test_more_than_is_wanted_is_refused_before_it_is_read(store: ObjectStore) -> None:
    for n in range(3):
        verdicts.add(store, "job", verdict(n))
    known: verdicts.Known = {}
    with pytest.raises(JobConflict, match=r"more than 2 verdicts.*imagemill reviews show job"):
        list(verdicts.given(store, "job", known, most=2))
    assert known == {}
    assert len(list(verdicts.given(store, "job", known, most=3))) == len(known) == 3
    # A batch counts as many as it says something of.
    images = tuple(Seen(key=f"{n}", uri="s3://b/x") for n in range(5))
    verdicts.add_batch(store, "other", Batch(label="cat", group="all", by="ann", at="", images=images))
    with pytest.raises(JobConflict, match="more than 4 verdicts"):
        list(verdicts.given(store, "other", most=4))
    assert len(list(verdicts.given(store, "other", most=5))) == 5
