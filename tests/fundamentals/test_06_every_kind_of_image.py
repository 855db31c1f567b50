"""However a photo is stored, it gets the label of the photo."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.fundamentals.conftest import Label, Row, Rows

# Turns the stored pixels so that EXIF orientation n turns them back.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def kinds(photo: Image.Image, another: Image.Image) -> dict[str, bytes]:
    """The photo, stored in every way that must be read."""
    gray = photo.convert("L")
    gray_16 = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    glass = photo.copy()
    glass.putalpha(Image.new("L", photo.size, 255))
    # Black where it is transparent: read without its alpha it would have a black frame.
    framed = Image.new("RGBA", (photo.width + 20, photo.height + 20), (0, 0, 0, 0))
    framed.paste(photo, (10, 10))
    rotated = {}
    for orientation, transpose in STORED.items():
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        rotated[f"exif-{orientation}.jpg"] = saved(photo.transpose(transpose), "JPEG", quality=95, exif=exif)
    return {
        "plain.jpg": saved(photo, "JPEG", quality=95),
        "progressive.jpg": saved(photo, "JPEG", quality=95, progressive=True),
        "cmyk.jpg": saved(photo.convert("CMYK"), "JPEG", quality=95),
        "gray.jpg": saved(gray, "JPEG", quality=95),
        **rotated,
        "rgb.png": saved(photo, "PNG"),
        "16-bit.png": saved(gray_16, "PNG"),
        "palette.png": saved(photo.quantize(256), "PNG"),
        "palette-with-transparency.png": saved(photo.quantize(255), "PNG", transparency=255),
        "alpha.png": saved(glass, "PNG"),
        "alpha-frame.png": saved(framed, "PNG"),
        "gray-alpha.png": saved(glass.convert("LA"), "PNG"),
        "animated.gif": saved(photo, "GIF", save_all=True, append_images=[another], duration=100),
        "plain.webp": saved(photo, "WEBP", quality=95),
        "lossless-alpha.webp": saved(glass, "WEBP", lossless=True),
        "animated.webp": saved(photo, "WEBP", save_all=True, append_images=[another], duration=100),
        "plain.tiff": saved(photo, "TIFF"),
        "lzw.tif": saved(photo, "TIFF", compression="tiff_lzw"),
        "plain.bmp": saved(photo, "BMP"),
        "plain.ppm": saved(photo, "PPM"),
        "wrong-suffix.jpg": saved(photo, "PNG"),
        "without-suffix": saved(photo, "JPEG", quality=95),
    }


@pytest.fixture(scope="module")
def panda(
    label: Label, rows: Rows, photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Row]:
    """Rows of one photo, stored in every way."""
    folder = tmp_path_factory.mktemp("kinds")
    with Image.open(photos["giant-panda"]) as photo, Image.open(photos["espresso"]) as another:
        files = kinds(photo.convert("RGB"), another.convert("RGB").resize(photo.size))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return rows(label(folder))


def test_all_of_them_are_a_giant_panda(panda: dict[str, Row]) -> None:
    wrong = {n: row["error_code"] or row["label"] for n, row in panda.items() if row["label"] != "giant panda"}

    assert not wrong


def test_the_scores_are_those_of_the_plain_photo(panda: dict[str, Row]) -> None:
    # Colours that were thrown away may cost some; a turned or dark-framed photo would cost much more.
    plain = panda["plain.jpg"]["score"]

    far = {name: row["score"] for name, row in panda.items() if abs(row["score"] - plain) > 0.1}

    assert not far


def test_width_and_height_are_those_one_sees(panda: dict[str, Row]) -> None:
    sizes = {(row["width"], row["height"]) for name, row in panda.items() if name != "alpha-frame.png"}

    assert sizes == {(640, 426)}


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1)])
def test_the_smallest_images_have_a_label_too(
    label: Label, rows: Rows, tmp_path: Path, width: int, height: int
) -> None:
    (tmp_path / "tiny.png").write_bytes(saved(Image.new("RGB", (width, height), "red"), "PNG"))

    row = rows(label(tmp_path))["tiny.png"]

    assert (row["status"], row["width"], row["height"]) == ("ok", width, height)
    assert row["label"]
