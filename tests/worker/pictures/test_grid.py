"""Grids show every image at its place, pixel by pixel: samples by class, contact sheets, pairs."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from worker.pictures.grid import COLUMNS, PAIR_COLUMNS, ROWS, Panel, contact_sheet, draw, pairs


def row(*levels: int, c: int = 1, size: int = 28) -> Tensor:
    """Return an image of each level, with a white first pixel."""
    images = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].repeat(1, c, size, size)
    images[:, :, 0, 0] = 255
    return images


def found(image: Image.Image, level: int) -> tuple[int, int, int, int]:
    """Return the left, upper, right and lower edge of the square of this level, ignoring edges of letters."""
    there = (np.asarray(image) == level).all(axis=2)
    rows, columns = (np.flatnonzero(there.sum(axis=axis) > 20) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_a_row_is_a_class_and_a_panel_lies_beside_the_other() -> None:
    # Given two panels of two classes, one row shorter than the other,
    first = Panel("generated", [row(40, 50, 60), row(70, 80, 90)])
    second = Panel("real", [row(100, 110), row(120)])
    image = draw([first, second], ("cat", "dog"))

    # I expect each image twice as large, aligned in rows and columns.
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
    assert sum(count for count, color in image.getcolors(1 << 16) or () if color == (200, 100, 30)) == 56 * 56


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


def test_only_the_first_of_a_thousand_classes_are_shown() -> None:
    rows = [row(*[place % 200] * COLUMNS) for place in range(1000)]
    image = draw([Panel("generated", rows)], [f"class {place}" for place in range(1000)])
    assert image.height < (ROWS + 1) * 60 and image.width < 1000


# Contact sheets and pairs


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_images_of_a_sheet_lie_in_rows_of_twelve_pixel_by_pixel() -> None:
    # Given thirteen images of one gray each,
    images = np.broadcast_to(np.arange(10, 140, 10, dtype=np.uint8)[:, None, None, None], (13, 28, 28, 1))
    # I expect them enlarged four times, the last in a second row.
    sheet = np.asarray(opened(contact_sheet(images)))
    assert sheet.shape == (2 * 112 + 4, 12 * 112 + 11 * 4)
    for at in range(13):
        top, left = at // 12 * 116, at % 12 * 116
        assert (sheet[top : top + 112, left : left + 112] == 10 * (at + 1)).all()
    assert (sheet[116:, 116:] == 255).all()


@pytest.mark.parametrize("size", [1, 32, 128, 129, 1000])
def test_no_sheet_is_wider_than_a_page_needs(size: int) -> None:
    image = opened(contact_sheet(np.full((3, size, size, 3), (200, 100, 30), np.uint8)))
    assert image.format == ("PNG" if size <= 128 else "JPEG")
    assert 1100 <= image.width <= 1600
    assert np.allclose(np.asarray(image)[8, 8], (200, 100, 30), atol=3)


@pytest.mark.parametrize(("n", "channels"), [(1, 1), (4, 3), (13, 1)])
def test_the_images_of_a_pair_lie_side_by_side(n: int, channels: int) -> None:
    # Given black generated images and light training images,
    generated, training = np.zeros((n, 8, 8, channels), np.uint8), np.full((n, 8, 8, channels), 200, np.uint8)
    image = np.asarray(opened(pairs(generated, training, ["distance 0.5"] * n)).convert("RGB"))
    # I expect both at the same size, a black one first, in as many rows of four as are needed.
    light = (image == 200).all(axis=2)
    side = int(light.sum() / n) ** 0.5
    assert side == int(side) and side % 8 == 0
    assert (image[: int(side), : int(side)] == 0).all()
    assert light.any(axis=1).sum() == side * -(-n // PAIR_COLUMNS)


@pytest.mark.parametrize("size", [8, 28, 64, 256, 1000])
def test_pairs_are_as_wide_as_a_page_needs_and_have_captions(size: int) -> None:
    images = np.full((5, size, size, 3), 200, np.uint8)
    plain, lettered = (np.asarray(opened(pairs(images, images, [text] * 5)).convert("L")) for text in ("", "MSE 0.1"))
    assert 1000 <= plain.shape[1] <= 1600
    assert plain.shape == lettered.shape and (lettered < 100).sum() > (plain < 100).sum() + 100
