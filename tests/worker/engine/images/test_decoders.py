"""Images decoded in processes of their own: the same pixels, and an image that ends its process harms no other."""

from __future__ import annotations

import io
import os
import signal
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.errors import DecodeFailed, DecodeTimeout, EmptyFile, NotAnImage, TooManyPixels
from contract.models.registry import Preprocess
from worker.engine.images import decode, decoders

HOW = Preprocess(size=64, crop=0.875, interpolation="bicubic", mean=127.0, std=128.0)
LIMIT = 10_000_000


@pytest.fixture
def children() -> Iterator[None]:
    decoders.configure(children=True, seconds=10, max_pixels=LIMIT)
    yield
    decoders.configure(children=False, seconds=10, max_pixels=LIMIT)


def opened(data: bytes, frames: int = 0) -> decode.Decoded:
    return decoders.open_item(data, HOW, max_pixels=LIMIT, frames=frames)


def encoded(format: str, size: tuple[int, int] = (90, 60), mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(sink, format)
    return sink.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO", "AVIF"])
def test_every_format_is_decoded_to_the_same_pixels(format: str, children: None) -> None:
    data = encoded(format)
    here, there = decode.open_item(data, HOW, max_pixels=LIMIT, frames=0), opened(data)
    assert (there.width, there.height) == (here.width, here.height)
    assert (there.pixels == here.pixels).all()
    assert decoders.look(data) == decode.look(data)


def test_sequences_too(children: None, photos: dict[str, Path]) -> None:
    frames = [Image.fromarray(np.full((40, 40, 3), n, np.uint8)) for n in (0, 100, 200)]
    sink = io.BytesIO()
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:])
    assert opened(sink.getvalue(), frames=3).pixels.shape == (3, 64, 64, 3)
    files = tuple(decode.Frame(name, path.read_bytes()) for name, path in list(photos.items())[:2])
    found = decoders.open_item(files, HOW, max_pixels=LIMIT, frames=8)
    assert (found.pixels == decode.open_item(files, HOW, max_pixels=LIMIT, frames=8).pixels).all()


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", EmptyFile), (b"hello", NotAnImage), (encoded("PNG", (4000, 3000), "1"), TooManyPixels)],
)
def test_errors_are_those_of_the_decoder(data: bytes, error: type[Exception], children: None) -> None:
    with pytest.raises(error):
        opened(data)


def slow_gif(megapixels: int) -> bytes:
    """A PNG of one colour that takes long to unfold, for its size."""
    side = int((megapixels * 10**6) ** 0.5)
    rows = zlib.compress((b"\0" + bytes(3 * side)) * side, 9)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_an_image_that_takes_too_long_ends_and_the_next_one_is_decoded(children: None) -> None:
    # Given a millisecond for each image,
    decoders.configure(children=True, seconds=0.001, max_pixels=LIMIT)
    with pytest.raises(DecodeTimeout, match="IMAGEMILL_DECODE_SECONDS"):
        opened(slow_gif(9))
    decoders.configure(children=True, seconds=10, max_pixels=LIMIT)
    assert opened(encoded("JPEG")).width == 90


def test_a_decoder_that_was_killed_while_idle_is_replaced(children: None) -> None:
    data = encoded("JPEG")
    opened(data)
    child = decoders._idle.get_nowait()
    os.kill(child.pid, signal.SIGKILL)
    child.running.wait()
    decoders._idle.put(child)
    assert opened(data).width == 90


def test_an_image_that_ends_two_decoders_is_at_fault(children: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that no decoder understands ends it, as a fault in a library would."""
    monkeypatch.setattr(decoders.decode, "open_item", None)
    head = {"op": "open", "size": "x", "crop": None, "interpolation": "?", "frames": 0, "uris": [], "max_pixels": 1}
    with pytest.raises(DecodeFailed, match="ended twice"):
        decoders._ask(head, [b"x"])
