"""The picture of a confusion matrix: dark where the examples are, and never larger than a screen."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from worker.pictures.confusion import draw


def found(image: Image.Image, classes: int) -> tuple[int, int, int]:
    """Return the left and upper edge of the matrix, found by its frame, and the side of a cell."""
    frame = (np.asarray(image) == 192).all(axis=2)
    cell = min(640 // classes, 56)
    top, left = (int(np.flatnonzero(frame.sum(axis=axis) >= classes * cell)[0]) + 1 for axis in (1, 0))
    return left, top, cell


def test_a_cell_is_the_darker_the_larger_its_share_of_the_row() -> None:
    # Given a matrix with the first row all in one cell and the second row split 1 to 3,
    image = draw(np.array([[0, 7], [20, 60]]), ("cat", "dog"))

    # I expect white, full, light and darker cells, sampled beside the counts in the middle.
    left, top, cell = found(image, 2)
    shade = [[sum(image.getpixel((left + x * cell + 4, top + y * cell + 4))) for x in (0, 1)] for y in (0, 1)]  # type: ignore[arg-type]
    assert shade[0][0] == 3 * 255
    assert shade[0][1] == 8 + 69 + 148
    assert shade[0][0] > shade[1][0] > shade[1][1] > shade[0][1]


def test_counts_and_names_are_written() -> None:
    def ink(image: object, box: tuple[int, int, int, int]) -> int:
        return int((np.asarray(image.crop(box).convert("L")) < 100).sum())  # type: ignore[attr-defined]

    empty = draw(np.zeros((2, 2), np.int64), ("cat", "dog"))
    full = draw(np.array([[888, 9], [0, 0]]), ("cat", "dog"))
    left, top, cell = found(empty, 2)
    first = (left + 1, top + 1, left + cell - 1, top + cell - 1)
    assert ink(empty, first) == 0 and ink(full, first) > 10, "the count"
    for place in range(2):
        row, column = top + place * cell, left + place * cell
        assert ink(empty, (30, row, left - 4, row + cell)) > 30, "the true name, on the left"
        assert ink(empty, (column, 30, column + cell, top - 4)) > 30, "the predicted one, above"


@pytest.mark.parametrize("classes", [2, 10, 100, 640, 1000])
def test_a_matrix_of_many_classes_stays_a_picture(classes: int) -> None:
    counts = np.eye(classes, dtype=np.int64) * 1000
    image = draw(counts, [f"number {n} of a taxonomy whose names are long\nand have two lines" for n in range(classes)])
    assert max(image.size) <= max(950, classes + 300)


def test_empty_names_and_rows_without_examples_are_drawn() -> None:
    assert draw(np.zeros((2, 2), np.int64), ("", "ß")).mode == "RGB"


def test_a_rare_mistake_is_visible() -> None:
    def darkness(count: int) -> float:
        counts = np.eye(20, dtype=np.int64) * 100
        counts[0, 19] = count
        return float(np.asarray(draw(counts, ["n"] * 20)).mean())

    assert darkness(1) < darkness(0)


def test_twice_the_scale_is_twice_the_size() -> None:
    counts = np.eye(3, dtype=np.int64)
    once, twice = draw(counts, ("a", "b", "c")), draw(counts, ("a", "b", "c"), scale=2)
    assert np.allclose(twice.size, 2 * np.array(once.size), atol=4)
