"""What counts where several people reviewed an image. It reads nothing.

A reviewer has one vote an image: the newest verdict of theirs that stands. The label with more than half of the votes
counts. Where none has, the image is disputed: until one of the reviewers changes a verdict or another settles it, the
newest verdict is shown, and nobody learns from the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contract.jobs.reviews.records import Given, Verdict

Votes = dict[str, dict[str, Given]]
"""The vote of each reviewer, by image and reviewer."""


@dataclass(frozen=True)
class Settled:
    """What the votes on an image come to."""

    given: Given
    """The newest verdict for the label that counts; of a disputed image the newest of all."""
    reviewers: tuple[str, ...]
    """Who gave the votes, sorted."""
    disputed: bool = False

    @property
    def verdict(self) -> Verdict:
        return self.given.verdict


def votes(given: Iterable[Given]) -> Votes:
    """Return the votes of the verdicts that stand, which must come in the order in which they were given."""
    found: Votes = {}
    for one in given:
        found.setdefault(one.image, {})[one.by] = one
    return found


def settled(by: Mapping[str, Given]) -> Settled:
    """Return what the votes on one image come to, by reviewer."""
    newest = sorted(by.values(), key=lambda one: one.named)
    ((label, most),) = Counter(one.label for one in newest).most_common(1)
    reviewers = tuple(sorted(by))
    if 2 * most <= len(newest):
        return Settled(newest[-1], reviewers, disputed=True)
    return Settled(next(one for one in reversed(newest) if one.label == label), reviewers)
