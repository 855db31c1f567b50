"""Images decoded in processes of their own: the same pixels, and an image that ends its process harms no other."""

from __future__ import annotations

import io
import os
import signal
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.errors import DecodeFailed, DecodeTimeout, EmptyFile, ImageError, NotAnImage, TooManyPixels
from contract.models.registry import Preprocess
from worker.confinement.confine import Limits
from worker.engine.budget import budget
from worker.engine.images import chunk, decode, decoder, decoders

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


def together(items: list[bytes]) -> list[str | tuple[int, int]]:
    """Decode several at once, and return the size of each, or the code of its error."""
    found = dict(decoders.open_each(items, HOW, max_pixels=LIMIT, frames=0))
    assert sorted(found) == list(range(len(items)))
    return [_outcome(found[place]) for place in range(len(items))]


def _outcome(found: decode.Decoded | Exception) -> str | tuple[int, int]:
    if isinstance(found, decode.Decoded):
        return found.width, found.height
    assert isinstance(found, ImageError), found
    return found.code


def test_several_at_once_are_decoded_to_the_same_pixels(children: None) -> None:
    # Given images of many kinds, of which one asks for memory, and some are none,
    large = encoded("PNG", (2000, 1500))
    items = [encoded("JPEG"), b"", large, b"hello", encoded("PNG", (4000, 3000), "1"), encoded("WEBP", (30, 20))]
    # if they are decoded together, I expect each to be what it is alone,
    found = dict(decoders.open_each(items, HOW, max_pixels=LIMIT, frames=0))
    for place in (0, 2, 5):
        here, there = decode.open_item(items[place], HOW, max_pixels=LIMIT, frames=0), found[place]
        assert isinstance(there, decode.Decoded)
        assert (there.width, there.height) == (here.width, here.height)
        assert (there.pixels == here.pixels).all()
    assert [type(found[place]) for place in (1, 3, 4)] == [EmptyFile, NotAnImage, TooManyPixels]
    # and one process to have done it, which holds no memory any more.
    assert decoders._idle.qsize() == 1
    assert budget().pixels.held == 0


def test_what_does_not_fit_into_the_memory_of_a_decoder_goes_alone(
    children: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(30, 20), (200, 100), (40, 20)]
    files = [encoded("BMP", size) for size in sizes]
    monkeypatch.setattr(chunk, "ROOM", len(files[1]) - 1)
    assert together(files) == sizes


@pytest.mark.parametrize("place", [0, 2, 5])
def test_an_image_that_crashes_or_stalls_its_decoder_harms_none_beside_it(
    place: int, children: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given decoders that crash on one image and never end on another,
    readable = (str(Path(__file__).parents[4] / "tests"),)
    monkeypatch.setattr(decoder, "_MODULE", "tests.worker.engine.images.dying_decoder")
    monkeypatch.setattr(decoder, "Limits", partial(Limits, readable=readable))
    decoders.configure(children=True, seconds=1, max_pixels=LIMIT)
    good = encoded("JPEG")
    items = [good] * 6
    items[place] = b"poison"
    items.insert(3, b"slow")
    # if they are among others, I expect each of them to be one error, and the others to be decoded.
    wanted: list[str | tuple[int, int]] = [(90, 60)] * 6
    wanted[place] = "decode_failed"
    wanted.insert(3, "decode_timeout")
    assert together(items) == wanted
    assert budget().pixels.held == 0


def test_without_shared_memory_each_image_is_a_request(children: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert together([encoded("JPEG"), b"hello"]) == [(90, 60), "not_an_image"]


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
    monkeypatch.setattr(decode, "open_item", None)
    head: dict[str, Any] = {
        "op": "open",
        "size": "x",
        "crop": None,
        "interpolation": "?",
        "frames": 0,
        "uris": [],
        "max_pixels": 1,
    }
    with pytest.raises(DecodeFailed, match="ended twice"):
        decoders._ask(head, [b"x"])
