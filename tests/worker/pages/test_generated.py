"""The page of a generated data set: images first, then how they were chosen, without what was not measured."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.data.image_index import REJECTS
from tests.worker.pages.test_page import Reader, read
from worker.metrics.distances import Distances, Kid, Manifold
from worker.pages.acceptance import MEANING, ClassCount
from worker.pages.generated import (
    SHEET,
    SHEETS,
    GateScores,
    Nearest,
    Synthesis,
    pictured,
    sections,
)

CAT = ClassCount("cat", 100, 100, 400, {"class": 150, "score": 50, "surplus": 100})
DOG = ClassCount("<dog>", 100, 20, 2000, {"class": 1900, "duplicate": 80})
DISTANCES = Distances(
    frechet=1.5,
    kid=Kid(mean=0.001, std=0.0001, subsets=10, size=100),
    manifold=Manifold(precision=0.5, recall=0.25, density=0.75, coverage=0.125, k=5),
    real=200,
    generated=120,
    dimensions=64,
)


def images(n: int, size: int = 8, channels: int = 1) -> NDArray[np.uint8]:
    return np.zeros((n, size, size, channels), np.uint8)


def headings(found: Synthesis) -> list[str]:
    return [one.heading for one in sections(found)]


def test_pictures_come_before_figures() -> None:
    # Given a data set with all its figures,
    found = Synthesis(
        (CAT, DOG),
        {0: images(50), 1: images(20)},
        GateScores(np.ones(120), np.zeros(2000), 0.9),
        Nearest(images(25), images(25), [0.1] * 25, 0.02),
        DISTANCES,
        "judge@1",
    )
    # I expect pictures before figures,
    assert headings(found) == [
        "Images",
        "Nearest training images",
        "Acceptance",
        "Scores of the gate",
        "Classes",
        "Distances to real images",
    ]
    reader = read(*sections(found))
    assert reader.alts[:2] == [f"cat: {SHEET} of 100", "<dog>: 20 of 20; 80 of 100 wanted are missing"]
    assert reader.tags.count("img") == 5
    # and the figures of each class, largest shortfall first.
    why, counts, rejects, distances = reader.tables
    assert [row[0] for row in why] == ["candidates", "accepted", "class", "score", "duplicate", "surplus", "candidates"]
    assert why[2][2:] == ["2,050", "85.42\xa0%"]
    assert counts[1] == ["<dog>", "100", "20", "80", "2,000", "1.00\xa0%"]
    assert counts[2] == ["cat", "100", "100", "0", "400", "33.33\xa0%"], "a surplus says nothing of the generator"
    assert rejects[0] == ["class", "class", "score", "duplicate", "surplus"]
    assert rejects[2] == ["cat", "150", "50", "0", "100"]
    assert [row[0] for row in distances[1:7]] == [
        "Fréchet distance",
        "kernel distance",
        "precision",
        "recall",
        "density",
        "coverage",
    ]
    assert "features of judge@1" in reader.text


def test_without_a_gate_there_are_images_and_counts() -> None:
    found = Synthesis((ClassCount("cat", 10, 10, 10),), {0: images(10, 64, 3)})
    assert headings(found) == ["Images", "Classes"]
    reader = read(*sections(found))
    assert reader.tables == [
        [
            ["class", "wanted", "accepted", "missing", "candidates", "acceptance"],
            ["cat", "10", "10", "0", "10", "100.00\xa0%"],
        ]
    ]
    assert "in 1 class." in reader.text


def test_a_class_without_an_image_is_named() -> None:
    found = Synthesis((CAT, ClassCount("unicorn", 10, 0, 0), ClassCount("yeti", 5, 0, 9, {"class": 9})), {1: images(0)})
    text = read(*sections(found)).text
    assert "Classes without any image: unicorn, yeti." in text


def test_only_the_worst_of_a_thousand_classes_have_a_sheet() -> None:
    # Given a thousand classes with the lowest acceptance in the middle,
    classes = tuple(ClassCount(f"class {n}", 10, 10, 20 + 500 - abs(n - 500)) for n in range(1000))
    shown = pictured(classes)
    # I expect sheets of the middle classes in their order, and every class in the table.
    assert len(shown) == SHEETS and list(shown) == sorted(shown)
    assert all(abs(at - 500) <= SHEETS // 2 for at in shown)
    reader: Reader = read(*sections(Synthesis(classes, {at: images(10) for at in range(1000)})))
    assert reader.tags.count("img") == SHEETS + 1
    assert len(reader.tables[1]) == 1001
    assert f"Only the {SHEETS} classes with the lowest acceptance are shown." in reader.text


def test_few_classes_are_all_shown_in_their_order() -> None:
    assert pictured((CAT, DOG)) == (0, 1)


@pytest.mark.parametrize(
    ("one", "acceptance", "shortfall"),
    [
        (ClassCount("none", 5, 0, 0), None, 5),
        (ClassCount("only surplus", 5, 0, 3, {"surplus": 3}), None, 5),
        (ClassCount("half", 5, 4, 8), 0.5, 1),
        (ClassCount("more than wanted", 5, 6, 6), 1.0, 0),
    ],
)
def test_acceptance_and_shortfall_of_a_class(one: ClassCount, acceptance: float | None, shortfall: int) -> None:
    assert (one.acceptance, one.shortfall) == (acceptance, shortfall)


def test_every_reason_has_its_meaning() -> None:
    assert tuple(MEANING) == REJECTS
