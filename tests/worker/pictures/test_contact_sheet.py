"""A contact sheet shows every image, in rows of twelve, at a size that can be looked at."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from worker.pictures import contact_sheet


def test_images_lie_in_rows_pixel_by_pixel() -> None:
    # Given thirteen images of one gray each,
    images = np.broadcast_to(np.arange(10, 140, 10, np.uint8)[:, None, None, None], (13, 28, 28, 1))
    # I expect them enlarged four times, the last in a second row.
    found = np.asarray(Image.open(io.BytesIO(contact_sheet.draw(images))))
    assert found.shape == (2 * 112 + 4, 12 * 112 + 11 * 4)
    for at in range(13):
        top, left = at // 12 * 116, at % 12 * 116
        assert (found[top : top + 112, left : left + 112] == 10 * (at + 1)).all()
    assert (found[116:, 116:] == 255).all()


@pytest.mark.parametrize("size", [1, 32, 128, 129, 1000])
def test_no_sheet_is_wider_than_a_page_needs(size: int) -> None:
    data = contact_sheet.draw(np.full((3, size, size, 3), (200, 100, 30), np.uint8))
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == ("PNG" if size <= 128 else "JPEG")
        assert 1100 <= image.width <= 1600
        assert np.allclose(np.asarray(image)[8, 8], (200, 100, 30), atol=3)
