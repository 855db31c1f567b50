"""Counts the verdicts on a job's images as they come and go, so that nobody has to go through all of them again."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping

from contract.jobs.reviews.records import Given, Named
from contract.jobs.reviews.settle import settled

Pattern = tuple[bool | None, tuple[tuple[str, str], ...]]
"""What was said of an image: whether the label that counts is another than the model's, None if the image is disputed;
and each reviewer with their label, sorted."""


class Tally:
    """The verdicts that stand, by image, and how many images have the same votes. For one thread at a time."""

    def __init__(self, given: Iterable[Given] = ()) -> None:
        self.verdicts = 0
        """Verdicts that stand."""
        self.patterns: Counter[Pattern] = Counter()
        """Images by what was said of them: far fewer than images, as reviewers and labels are few."""
        self.disputed: set[str] = set()
        """Images on which no label has more than half of the votes."""
        self.differing: set[str] = set()
        """Images to which reviewers gave different labels."""
        self._said: dict[str, list[Given]] = {}
        self.change(given)

    def __len__(self) -> int:
        """Return how many images somebody reviewed."""
        return len(self._said)

    def __contains__(self, image: str) -> bool:
        """Return whether somebody reviewed an image."""
        return image in self._said

    def images(self) -> frozenset[str]:
        """Return the images that somebody reviewed."""
        return frozenset(self._said)

    def change(self, added: Iterable[Given], removed: Iterable[Given] = ()) -> None:
        """Count verdicts that are new, in any order, and no longer count others."""
        added, removed = list(added), list(removed)
        images = {one.image for one in (*added, *removed)}
        for image in images:
            self._count(image, -1)
        for one in removed:
            self._said[one.image].remove(one)
        for one in added:
            insort(self._said.setdefault(one.image, []), one, key=_named)
        for image in images:
            self._count(image, 1)
            if not self._said[image]:
                del self._said[image]
        self.verdicts += len(added) - len(removed)

    def votes(self, image: str) -> dict[str, Given]:
        """Return the vote of each reviewer on an image: the newest of their verdicts."""
        return {one.by: one for one in self._said.get(image, ())}

    def not_by(self, reviewer: str) -> set[str]:
        """Return the images that others reviewed, and this reviewer has not."""
        return {image for image, said in self._said.items() if all(one.by != reviewer for one in said)}

    def _count(self, image: str, sign: int) -> None:
        """Count the votes on an image, or with -1 no longer."""
        given = self.votes(image)
        for images in (self.disputed, self.differing):
            images.discard(image)
        if not given:
            return
        pattern = _pattern(given)
        self.patterns[pattern] += sign
        if not self.patterns[pattern]:
            del self.patterns[pattern]
        if sign > 0 and len({label for _, label in pattern[1]}) > 1:
            self.differing.add(image)
            if pattern[0] is None:
                self.disputed.add(image)


def _pattern(given: Mapping[str, Given]) -> Pattern:
    found = settled(given)
    changed = None if found.disputed else found.given.label != found.given.predicted
    return changed, tuple(sorted((by, one.label) for by, one in given.items()))


def _named(given: Given) -> Named:
    return given.named
