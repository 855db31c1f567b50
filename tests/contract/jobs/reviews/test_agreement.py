"""How far reviewers agree: against figures worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from contract.jobs.reviews.agreement import cohen_kappa, summary
from contract.jobs.reviews.records import Given, Named, Verdict
from contract.jobs.reviews.tally import Tally


def given(*said: tuple[str, str, str]) -> list[Given]:
    """Verdicts in this order: who, on which image, which label."""
    found = []
    for number, (by, key, label) in enumerate(said):
        verdict = Verdict(key=key, uri=f"s3://b/{key}", label=label, predicted="cat", by=by, at=f"{number}")
        found.append(Given.of(Named(f"{number:013d}-{'0' * 8}", verdict.image), verdict))
    return found


def test_kappa_of_the_usual_example() -> None:
    # 50 grants: both say yes to 20 and no to 15, the first alone says yes to 5, the second alone to 10. Agreement is
    # 0.7, by chance 0.5, so kappa is 0.4.
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohen_kappa(Counter(pairs)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("pairs", "kappa"),
    [
        ([], None),
        ([("cat", "cat")] * 5, None),
        ([("cat", "dog")] * 5, 0.0),
        ([("cat", "cat"), ("dog", "dog")], 1.0),
        ([("cat", "dog"), ("dog", "cat")], -1.0),
        ([("cat", "cat"), ("cat", "cat"), ("cat", "dog")], 0.0),
    ],
)
def test_kappa_at_its_ends(pairs: list[tuple[str, str]], kappa: float | None) -> None:
    assert cohen_kappa(Counter(pairs)) == kappa


def test_the_summary_of_a_job() -> None:
    # Given three reviewers, one of whom came to see it as the other,
    found = summary(
        "job",
        Tally(
            given(
                ("ann", "1", "cat"),
                ("ann", "2", "dog"),
                ("ann", "3", "fox"),
                ("ann", "4", "cat"),
                ("bob", "3", "dog"),
                ("bob", "1", "dog"),
                ("bob", "2", "cat"),
                ("bob", "2", "dog"),
                ("eve", "3", "dog"),
            )
        ),
    )
    # I expect each counted by the votes, not by what they said before,
    assert (found.images, found.disputed, found.changed) == (4, 1, 2)
    assert [(one.name, one.images) for one in found.reviewers] == [("ann", 4), ("bob", 3), ("eve", 1)]
    shared = {(one.a, one.b): (one.images, one.agreed) for one in found.pairs}
    assert shared == {("ann", "bob"): (3, 1), ("ann", "eve"): (1, 0), ("bob", "eve"): (1, 1)}
    # of three images, ann said cat, dog, fox and bob dog, dog, dog: a third agrees, and a third would by chance.
    assert found.pairs[0].agreement == pytest.approx(1 / 3) and found.pairs[0].kappa == 0.0
    # The disagreements come in the order in which they arose, with what settled them.
    assert [(one.key, one.label) for one in found.disagreements] == [("1", None), ("3", "dog")]
    assert [(one.by, one.label) for one in found.disagreements[1].said] == [
        ("ann", "fox"),
        ("bob", "dog"),
        ("eve", "dog"),
    ]
