"""What is taken for a plain JPEG is decoded by Pillow, whatever was done to it."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from contract.errors import ImageError
from worker.engine.images import decode
from worker.engine.images.plain_jpeg import is_plain

_EOI = b"\xff\xd9"


def jpeg(mode: str = "RGB", size: tuple[int, int] = (45, 37), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).resize(size).convert(mode).save(sink, "JPEG", **options)
    return sink.getvalue()


LIMIT = 10**7


def headed(data: bytes) -> tuple[int, int, int] | None:
    return decode.plain_header(data, 32, crop=1.0, max_pixels=LIMIT)


def accepted(data: bytes) -> bool:
    try:
        decode.decode(data, 32, crop=1.0, interpolation="bicubic", max_pixels=LIMIT)
    except ImageError:
        return False
    return True


PLAIN = [
    *(jpeg(subsampling=n) for n in range(3)),
    jpeg("L"),
    jpeg(optimize=True, quality=30),
    jpeg(restart_marker_blocks=2),
    jpeg(comment="hello", exif=Image.Exif(), icc_profile=b"x" * 300),
    jpeg() + b"what a camera adds",
]


@pytest.mark.parametrize("data", PLAIN)
def test_what_cameras_and_programs_write_is_plain(data: bytes) -> None:
    assert is_plain(data)
    assert headed(data) == (45, 37, 1)
    assert accepted(data)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(progressive=True),
        jpeg("CMYK"),
        jpeg(keep_rgb=True),
        jpeg()[:-2],
        jpeg()[:-20],
        jpeg()[:300],
        jpeg()[:-2] + b"\xff\xc4\x00\x02" + _EOI,
        jpeg(restart_marker_blocks=2).replace(b"\xff\xdd\x00\x04\x00\x02", b"\xff\xdd\x00\x04\x00\x00"),
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
    ],
)
def test_all_else_is_not(data: bytes) -> None:
    assert not is_plain(data)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(300, 200), (60, 90), (1200, 1100)])
def test_pixels_in_an_array_become_what_those_of_a_file_become(
    size: tuple[int, int], orientation: int, regions: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(size=size, exif=exif)
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    found = decode.squared_array(pixels, orientation, 400, 0.9, "bicubic", regions=regions)
    wanted = decode.decode(data, 400, crop=0.9, interpolation="bicubic", max_pixels=LIMIT, regions=regions)
    assert (found.width, found.height) == (wanted.width, wanted.height)
    assert (found.pixels == wanted.pixels).all()
    if found.region is None or wanted.region is None:
        assert found.region is wanted.region is None
    else:
        assert (found.region.orientation, found.region.extent) == (wanted.region.orientation, wanted.region.extent)
        assert found.region.down_first == wanted.region.down_first


def test_what_libjpeg_would_reduce_or_has_too_many_pixels_stays_with_pillow() -> None:
    data = jpeg(size=(300, 200))
    assert is_plain(data)
    assert decode.plain_header(data, 32, crop=1.0, max_pixels=LIMIT) is None
    assert decode.plain_header(data, 64, crop=1.0, max_pixels=LIMIT) == (300, 200, 1)
    assert decode.plain_header(data, 64, crop=1.0, max_pixels=60_000 - 1) is None


def mutated(data: bytes, draws: random.Random) -> bytes:
    """A copy with a few bytes changed, cut out, put twice or swapped, most of them in its header."""
    found = bytearray(data)
    header = data.index(b"\xff\xda") + 12
    for _ in range(draws.choice((1, 1, 1, 2, 4))):
        at = draws.randrange(header if draws.random() < 0.7 else len(found))
        at = min(at, len(found) - 1)
        match draws.randrange(6):
            case 0:
                found[at] ^= 1 << draws.randrange(8)
            case 1:
                found[at] = draws.choice((0, 1, 2, 3, 16, 17, 34, 63, 127, 128, 255, draws.randrange(256)))
            case 2:
                del found[at : at + draws.choice((1, 2, 5, 67))]
            case 3:
                found[at:at] = found[at : at + draws.choice((1, 2, 4, 69, 200))]
            case 4:
                found[at:at] = draws.choice((b"\xff", _EOI, b"\xff\xd0", b"\xff\xda", b"\xff\xc4", b"\xff\x01"))
            case _:
                other = draws.randrange(len(found))
                found[at : at + 4], found[other : other + 4] = found[other : other + 4], found[at : at + 4]
        if not found:
            break
    return bytes(found)


@pytest.mark.parametrize("seed", range(len(PLAIN)))
def test_pillow_decodes_whatever_is_plain(seed: int) -> None:
    draws = random.Random(seed)
    plain = 0
    for _ in range(300):
        data = mutated(PLAIN[seed], draws)
        if headed(data):
            plain += 1
            assert accepted(data), data.hex()
    assert plain > 20, "or nothing was tried"
