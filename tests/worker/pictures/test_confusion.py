"""The picture of a confusion matrix: dark where the examples are, and never larger than a screen."""

from __future__ import annotations

import numpy as np
import pytest

from worker.pictures.confusion import draw


def middles(classes: int, size: tuple[int, int]) -> tuple[int, int]:
    """Left edge and side of a cell, from the picture's width alone: the matrix ends 8 pixels before its right edge."""
    cell = min(640 // classes, 56)
    return size[0] - 8 - classes * cell, cell


def test_a_cell_is_the_darker_the_larger_its_share_of_the_row() -> None:
    # Given a matrix whose first row is all in one cell and whose second is shared 1 to 3,
    image = draw(np.array([[0, 7], [20, 60]]), ("cat", "dog"))

    # I expect white, full, light and darker cells; read beside the counts, which are in the middle.
    start, cell = middles(2, image.size)
    shade = [[sum(image.getpixel((start + x * cell + 4, start + y * cell + 4))) for x in (0, 1)] for y in (0, 1)]  # type: ignore[arg-type]
    assert shade[0][0] == 3 * 255
    assert shade[0][1] == 8 + 69 + 148
    assert shade[0][0] > shade[1][0] > shade[1][1] > shade[0][1]


def test_counts_and_names_are_written() -> None:
    def ink(image: object, box: tuple[int, int, int, int]) -> int:
        return int((np.asarray(image.crop(box).convert("L")) < 100).sum())  # type: ignore[attr-defined]

    empty = draw(np.zeros((2, 2), np.int64), ("cat", "dog"))
    full = draw(np.array([[888, 9], [0, 0]]), ("cat", "dog"))
    start, cell = middles(2, empty.size)
    first = (start + 1, start + 1, start + cell - 1, start + cell - 1)
    assert ink(empty, first) == 0 and ink(full, first) > 10, "the count"
    for place in range(2):
        edge = start + place * cell
        assert ink(empty, (30, edge, start - 4, edge + cell)) > 30, "the true name, on the left"
        assert ink(empty, (edge, 30, edge + cell, start - 4)) > 30, "the predicted one, above"


@pytest.mark.parametrize("classes", [2, 10, 100, 640, 1000])
def test_a_matrix_of_many_classes_stays_a_picture(classes: int) -> None:
    counts = np.eye(classes, dtype=np.int64) * 1000
    image = draw(counts, [f"number {n} of a taxonomy whose names are long\nand have two lines" for n in range(classes)])
    assert image.width == image.height <= max(900, classes + 250)


def test_names_of_no_length_and_rows_of_no_examples_are_drawn() -> None:
    assert draw(np.zeros((2, 2), np.int64), ("", "ß")).mode == "RGB"
