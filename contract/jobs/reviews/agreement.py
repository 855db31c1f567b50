"""How far the reviewers of a job agree: counts, and for each two of them percent agreement and Cohen's kappa."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import combinations

from pydantic import Field

from contract.jobs.reviews.records import Given
from contract.jobs.reviews.settle import settled
from contract.jobs.reviews.tally import Tally
from contract.records import Record

MOST_REVIEWERS = 50
"""Reviewers who are compared with each other, those with the most votes first; they make 1,225 pairs."""
MOST_DISAGREEMENTS = 1000


class Reviewer(Record):
    """A person who reviewed images of a job."""

    name: str
    images: int = Field(description="Images on which they have a vote.")


class Pair(Record):
    """Two reviewers, and the images that both of them reviewed."""

    a: str
    b: str
    images: int = Field(description="Images that both reviewed.")
    agreed: int = Field(description="Images to which both gave the same label.")
    agreement: float = Field(description="`agreed` of `images`, 0 to 1.")
    kappa: float | None = Field(
        description="Cohen's kappa: 1 if they always agree, 0 if as often as by chance. None if both gave every image "
        "the same single label, where it is undefined."
    )


class Said(Record):
    """The vote of one reviewer on one image."""

    by: str
    label: str
    at: str


class Disagreement(Record):
    """An image to which its reviewers gave different labels."""

    key: str
    uri: str
    predicted: str | None = Field(description="What the model said.")
    said: tuple[Said, ...] = Field(description="The votes, in the order in which they were given.")
    label: str | None = Field(description="The label that more than half of them gave; None if it is disputed.")


class ReviewSummary(Record):
    """What people said of a job's labels, and how far they agree."""

    job: str
    images: int = Field(description="Images that somebody reviewed.")
    changed: int = Field(description="Images whose label is another than the model's, disputed ones left out.")
    disputed: int = Field(description="Images on which no label has more than half of the votes.")
    reviewers: tuple[Reviewer, ...] = Field(description="Who reviewed, the most images first.")
    pairs: tuple[Pair, ...] = Field(description=f"Each two of the first {MOST_REVIEWERS} who share an image.")
    disagreements: tuple[Disagreement, ...] = Field(
        description=f"Images that got different labels, in the order in which they came to; at most the newest "
        f"{MOST_DISAGREEMENTS:,}."
    )


def summary(job: str, tally: Tally) -> ReviewSummary:
    """Return what the votes on a job's images come to."""
    counts: Counter[str] = Counter()
    outcomes: Counter[bool | None] = Counter()
    for (changed, said), images in tally.patterns.items():
        outcomes[changed] += images
        for by, _ in said:
            counts[by] += images
    reviewers = sorted(counts, key=lambda name: (-counts[name], name))
    return ReviewSummary(
        job=job,
        images=len(tally),
        changed=outcomes[True],
        disputed=outcomes[None],
        reviewers=tuple(Reviewer(name=name, images=counts[name]) for name in reviewers),
        pairs=_pairs(frozenset(reviewers[:MOST_REVIEWERS]), tally),
        disagreements=_disagreements(tally),
    )


def cohen_kappa(pairs: Mapping[tuple[str, str], int]) -> float | None:
    """Return Cohen's kappa of the labels that two people gave the same images, None where it is undefined.

    `pairs` counts the images by the label of the first and that of the second.

    (p_o − p_e) / (1 − p_e), with p_o the share of images on which they agree and p_e the share on which they would by
    chance: the sum over labels of the product of the shares with which each gives it. J. Cohen, "A coefficient of
    agreement for nominal scales", Educational and Psychological Measurement 20 (1960), 37–46.
    """
    n = sum(pairs.values())
    if not n:
        return None
    first, second = Counter[str](), Counter[str]()
    for (a, b), images in pairs.items():
        first[a] += images
        second[b] += images
    # In whole numbers, so that agreement by chance alone is told exactly: n p_o and n² p_e.
    agreed = _agreed(pairs)
    chance = sum(count * second[label] for label, count in first.items())
    return None if chance == n * n else (n * agreed - chance) / (n * n - chance)


def _pairs(reviewers: Collection[str], tally: Tally) -> tuple[Pair, ...]:
    shared: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    for (_, said), images in tally.patterns.items():
        for (a, one), (b, other) in combinations([vote for vote in said if vote[0] in reviewers], 2):
            shared.setdefault((a, b), Counter())[one, other] += images
    found = []
    for (a, b), labels in sorted(shared.items(), key=lambda one: (-one[1].total(), one[0])):
        images, agreed = labels.total(), _agreed(labels)
        share = agreed / images
        found.append(Pair(a=a, b=b, images=images, agreed=agreed, agreement=share, kappa=cohen_kappa(labels)))
    return tuple(found)


def _agreed(pairs: Mapping[tuple[str, str], int]) -> int:
    return sum(images for (a, b), images in pairs.items() if a == b)


def _disagreements(tally: Tally) -> tuple[Disagreement, ...]:
    # Images of one batch have one name, so the image decides.
    differ = sorted((max(one.named for one in tally.votes(image).values()), image) for image in tally.differing)
    return tuple(_disagreement(tally.votes(image)) for _, image in differ[-MOST_DISAGREEMENTS:])


def _disagreement(given: Mapping[str, Given]) -> Disagreement:
    said = [one.verdict for one in sorted(given.values(), key=lambda one: one.named)]
    found = settled(given)
    return Disagreement(
        key=said[0].key,
        uri=said[0].uri,
        predicted=said[0].predicted,
        said=tuple(Said(by=one.by, label=one.label, at=one.at) for one in said),
        label=None if found.disputed else found.given.label,
    )
