"""A grid of samples: every image where its class and its number say, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from worker.pictures.grid import COLUMNS, ROWS, Panel, draw


def row(*levels: int, c: int = 1, size: int = 28) -> Tensor:
    """An image of one level each, its first pixel white."""
    images = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].repeat(1, c, size, size)
    images[:, :, 0, 0] = 255
    return images


def found(image: Image.Image, level: int) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of the square of this level; the edge of a letter is not one."""
    there = (np.asarray(image) == level).all(axis=2)
    rows, columns = (np.flatnonzero(there.sum(axis=axis) > 20) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_a_row_is_a_class_and_a_panel_lies_beside_the_other() -> None:
    # Given two panels of two classes, one row shorter than the other,
    first = Panel("generated", [row(40, 50, 60), row(70, 80, 90)])
    second = Panel("real", [row(100, 110), row(120)])
    image = draw([first, second], ("cat", "dog"))

    # I expect each image twice as large, those of a row at one height, those of a column below each other.
    boxes = {level: found(image, level) for level in (40, 50, 60, 70, 80, 90, 100, 110, 120)}
    assert all((right - left, bottom - top) == (56, 56) for left, top, right, bottom in boxes.values())
    assert len({boxes[level][1] for level in (40, 50, 60, 100, 110)}) == 1
    assert len({boxes[level][1] for level in (70, 80, 90, 120)}) == 1
    assert boxes[40][3] < boxes[70][1]
    for above, below in ((40, 70), (50, 80), (60, 90), (100, 120)):
        assert boxes[above][0] == boxes[below][0]
    assert boxes[40][2] < boxes[50][0] < boxes[50][2] < boxes[60][0] < boxes[60][2] < boxes[100][0] < boxes[110][0]

    # And enlarged without blur: the white pixel is four, and its neighbours are what they were.
    left, top, _, _ = boxes[40]
    corner = np.asarray(image)[top : top + 3, left : left + 3, 0]
    assert corner.tolist() == [[255, 255, 40], [255, 255, 40], [40, 40, 40]]


def test_colours_are_kept() -> None:
    pixels = torch.tensor([200, 100, 30], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)
    image = draw([Panel("one", [pixels])], ("cat",))
    assert image.mode == "RGB"
    assert sum(count for count, color in image.getcolors(1 << 16) if color == (200, 100, 30)) == 56 * 56  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["", "a name\nof two lines", "so long a name that it cannot stand before its row " * 4]
)
def test_any_name_finds_its_place(name: str) -> None:
    image = draw([Panel("generated", [row(40)])], (name,))
    left, top, right, bottom = found(image, 40)
    assert 16 <= left <= 16 + 150 + 1
    ink = (np.asarray(image.convert("L"))[top:bottom, :left] < 100).any()
    assert bool(ink) == bool(name), "it is written, left of the images"
    assert right < image.width and bottom < image.height


def test_of_a_thousand_classes_the_first_are_shown() -> None:
    rows = [row(*[place % 200] * COLUMNS) for place in range(1000)]
    image = draw([Panel("generated", rows)], [f"class {place}" for place in range(1000)])
    assert image.height < (ROWS + 1) * 60 and image.width < 1000
