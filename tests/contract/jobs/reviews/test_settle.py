"""Which label counts where several people reviewed an image."""

from __future__ import annotations

import pytest

from contract.jobs.reviews.records import Given, Named, Verdict
from contract.jobs.reviews.settle import settled, votes

IMAGE = {"key": "a.jpg", "uri": "s3://b/a.jpg"}


def given(*said: str) -> list[Given]:
    """Verdicts in this order, as `ann:cat`."""
    found = []
    for number, one in enumerate(said):
        by, _, label = one.partition(":")
        verdict = Verdict(**IMAGE, label=label, by=by, at="")
        found.append(Given.of(Named(f"{number:013d}-{'0' * 8}", verdict.image), verdict))
    return found


@pytest.mark.parametrize(
    ("said", "label", "disputed"),
    [
        (["ann:cat"], "cat", False),
        (["ann:cat", "bob:cat"], "cat", False),
        # Two who differ: the newest is shown, and nobody learns from it,
        (["ann:cat", "bob:dog"], "dog", True),
        # until one of them changes a verdict,
        (["ann:cat", "bob:dog", "ann:dog"], "dog", False),
        # or a third settles it, which may come first.
        (["ann:cat", "bob:dog", "eve:cat"], "cat", False),
        (["eve:dog", "ann:cat", "bob:dog", "ann:cat"], "dog", False),
        # Half is no more than half, and the largest part is not either.
        (["ann:cat", "bob:cat", "eve:dog", "joe:dog"], "dog", True),
        (["ann:cat", "bob:cat", "eve:dog", "joe:fox", "kim:emu"], "emu", True),
    ],
)
def test_the_label_of_more_than_half_counts(said: list[str], label: str, disputed: bool) -> None:
    (by,) = votes(given(*said)).values()
    found = settled(by)
    assert (found.verdict.label, found.disputed) == (label, disputed)
    assert found.reviewers == tuple(sorted({one.partition(":")[0] for one in said}))


def test_who_gave_the_label_last_is_named() -> None:
    (by,) = votes(given("ann:cat", "eve:cat", "bob:dog")).values()
    assert settled(by).verdict.by == "eve"
