"""Verdicts that are counted as they come and go come to what all of them, counted at once, come to."""

from __future__ import annotations

import random

from contract.jobs.reviews.agreement import summary
from contract.jobs.reviews.records import MANY, Batch, Given, Named, Seen, Verdict
from contract.jobs.reviews.settle import settled, votes
from contract.jobs.reviews.tally import Tally


def said(number: int, key: str, label: str, by: str) -> list[Given]:
    verdict = Verdict(key=key, uri=f"s3://b/{key}", label=label, predicted="cat", by=by, at="")
    return [Given.of(Named(f"{number:013d}-{'0' * 8}", verdict.image), verdict)]


def batch(number: int, label: str, by: str) -> list[Given]:
    seen = tuple(Seen(key=f"{n}", uri=f"s3://b/{n}") for n in range(0, 20, 3))
    named = Named(f"{number:013d}-{'0' * 8}", MANY)
    return [Given.of(named, one) for one in Batch(label=label, group="all", by=by, at="", images=seen).verdicts()]


def test_a_tally_is_what_all_verdicts_come_to_in_whatever_order_they_came_and_went() -> None:
    rng = random.Random(0)
    people, labels = ("ann", "bob", "eve", "joe"), ("cat", "dog", "fox")
    found, standing = Tally(), dict[int, list[Given]]()
    for number in rng.sample(range(400), 400):
        who, what = rng.choice(people), rng.choice(labels)
        added = batch(number, what, who) if number % 40 == 0 else said(number, str(rng.randrange(20)), what, who)
        standing[number] = added
        gone = [standing.pop(rng.choice([*standing])) for _ in range(rng.randrange(3)) if len(standing) > 1]
        # One that came and went at once was never counted.
        kept = [one for one in added if number in standing]
        found.change(kept, [one for some in gone if some is not added for one in some])

        given = sorted((one for some in standing.values() for one in some), key=lambda one: one.named)
        cast = votes(given)
        assert found.verdicts == len(given) and len(found) == len(cast)
        assert all(found.votes(image) == by for image, by in cast.items())
        assert found.disputed == {image for image, by in cast.items() if settled(by).disputed}
        assert found.not_by("ann") == {image for image, by in cast.items() if "ann" not in by}
        assert summary("job", found) == summary("job", Tally(given))
        images = [one for by in cast.values() if not (one := settled(by)).disputed]
        assert summary("job", found).changed == sum(one.given.label != one.given.predicted for one in images)
    # If all of it is taken back, nothing is held.
    found.change([], [one for some in standing.values() for one in some])
    assert (found.verdicts, len(found), *map(len, (found.patterns, found.disputed, found.differing))) == (0,) * 5


def test_pairs_are_counted_of_the_reviewers_with_the_most_votes_alone() -> None:
    # Given an image that two thousand people reviewed, and two who reviewed more,
    crowd = [one for n in range(2000) for one in said(n, "a", "dog", f"p{n:04d}")]
    more = [one for n, by in enumerate(("zoe", "zed"), 3000) for key in "ab" for one in said(n, key, "cat", by)]
    found = summary("job", Tally([*crowd, *more]))
    assert len(found.reviewers) == 2002 and [one.name for one in found.reviewers[:2]] == ["zed", "zoe"]
    assert len(found.pairs) == 50 * 49 // 2 and (found.pairs[0].a, found.pairs[0].b, found.pairs[0].images) == (
        "zed",
        "zoe",
        2,
    )
