"""An image file becomes 224 × 224 upright RGB pixels, or one error with a stable code."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from contract.errors import DecodeFailed, EmptyFile, NotAnImage, TooManyFrames, TooManyPixels, TruncatedImage
from worker.engine.images import decode as module
from worker.engine.images.decode import Decoded, Frame, decode, decode_frames, decode_sequence

WIDTH, HEIGHT = 400, 300


def run(data: bytes, size: int = 224, crop: float = 1.0, max_pixels: int = 10**8) -> Decoded:
    return decode(data, size, crop=crop, interpolation="bicubic", max_pixels=max_pixels)


def scene(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Red grows to the right, green grows downwards, blue is half: no turn or mirror looks the same."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height), (width, 1)).T
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=2).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def difference(pixels: NDArray[np.uint8], image: Image.Image) -> float:
    """The mean absolute difference, in levels of 255, between decoded pixels and what `image` should give."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    expected = image.convert("RGB").resize((224, 224), box=(left, top, left + side, top + side))
    return float(np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).mean())


def png(width: int, height: int, chunks: bytes = b"") -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


GOOD: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encode(scene(), "JPEG", quality=95),
    "progressive jpeg": lambda: encode(scene(), "JPEG", quality=95, progressive=True),
    "cmyk jpeg": lambda: encode(scene().convert("CMYK"), "JPEG", quality=95),
    "png": lambda: encode(scene(), "PNG"),
    "palette png": lambda: encode(scene().quantize(256), "PNG"),
    "opaque alpha png": lambda: encode(scene().convert("RGBA"), "PNG"),
    "webp": lambda: encode(scene(), "WEBP", quality=95),
    "lossless webp": lambda: encode(scene(), "WEBP", lossless=True),
    "tiff": lambda: encode(scene(), "TIFF"),
    "lzw tiff": lambda: encode(scene(), "TIFF", compression="tiff_lzw"),
    "bmp": lambda: encode(scene(), "BMP"),
    "ppm": lambda: encode(scene(), "PPM"),
    "gif": lambda: encode(scene(), "GIF"),
    "avif": lambda: encode(scene(), "AVIF", quality=95),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_format_gives_the_same_pixels(name: str) -> None:
    decoded = run(GOOD[name]())
    assert (decoded.width, decoded.height) == (WIDTH, HEIGHT)
    assert decoded.pixels.shape == (224, 224, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    # A palette of 256 colours cannot hold this scene closer than that.
    assert difference(decoded.pixels, scene()) < (6.0 if name in ("palette png", "gif") else 2.5)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotated_photo_is_seen_upright(format: str, orientation: int) -> None:
    # Given a camera that stores the scene turned, and notes how,
    turned = scene()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose of the opposite turn
    if orientation in undo:
        turned = turned.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    # if I decode it,
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = run(encode(turned, format, exif=exif, **options))
    # I expect the scene, and its size as people see it.
    assert difference(decoded.pixels, scene()) < 2.5
    assert (decoded.width, decoded.height) == (WIDTH, HEIGHT)


def test_broken_exif_does_not_spoil_a_good_photo() -> None:
    data = encode(scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as on a worker
        decoded = run(data)
    assert difference(decoded.pixels, scene()) < 2.5


def test_sixteen_bits_of_gray_become_eight() -> None:
    ramp = np.linspace(0, 65535, 300 * 300).reshape(300, 300)
    gray = Image.fromarray((ramp / 257).astype(np.uint8))
    for format in ("PNG", "TIFF"):
        decoded = run(encode(Image.fromarray(ramp.astype(np.uint16)), format))
        assert difference(decoded.pixels, gray) < 1.0
    assert decoded.pixels.max() > 250, "white stays white"


def test_floats_and_wide_integers_become_eight_bits() -> None:
    ramp = np.linspace(0, 1, 300 * 300, dtype=np.float32).reshape(300, 300)
    gray = Image.fromarray((ramp * 255).astype(np.uint8))
    for pixels in (ramp, ramp * 255, (ramp * 65535).astype(np.int32), (ramp * 2**30).astype(np.int32)):
        assert difference(run(encode(Image.fromarray(pixels), "TIFF")).pixels, gray) < 1.0


def test_not_a_number_is_black() -> None:
    assert run(encode(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF")).pixels.max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_seen_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (50, 50), (10, 20, 30, 0))
    data = encode(clear.convert(mode), "TIFF" if mode == "PA" else "PNG")
    assert run(data).pixels.min() == 255


def test_a_transparent_palette_colour_is_seen_on_white() -> None:
    image = Image.new("P", (50, 50), 3)
    image.putpalette([0, 0, 0] * 4)
    assert run(encode(image, "PNG", transparency=3)).pixels.min() == 255
    assert run(encode(image, "GIF", transparency=3)).pixels.min() == 255
    assert run(encode(image, "PNG", transparency=b"\xff\xff\xff\x00")).pixels.min() == 255


def test_a_half_transparent_edge_does_not_bleed() -> None:
    # Given red on the left and fully transparent green on the right,
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (255, 0, 0, 255)
    pixels[:, 32:] = (0, 255, 0, 0)
    # the hidden green must not show, not even where the resize blends both.
    decoded = run(encode(Image.fromarray(pixels), "PNG")).pixels.astype(int)
    assert (decoded[..., 1] - decoded[..., 2]).max() <= 2


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_shows_its_first_frame(format: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options)
    assert run(data).pixels.reshape(-1, 3).mean(axis=0) == pytest.approx([255, 0, 0], abs=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_the_smallest_images_are_images(size: tuple[int, int], crop: float) -> None:
    decoded = run(encode(Image.new("RGB", size, (200, 100, 50)), "PNG"), crop=crop)
    assert decoded.pixels.reshape(-1, 3).tolist() == [[200, 100, 50]] * 224 * 224
    assert (decoded.width, decoded.height) == size


@pytest.mark.parametrize("mode", ["L", "1"])
def test_gray_and_black_and_white_become_rgb(mode: str) -> None:
    image = scene().convert("L").convert(mode)
    decoded = run(encode(image, "PNG"))
    assert difference(decoded.pixels, image.convert("L")) < 1.0


def test_the_crop_is_centred_and_measured_on_the_short_side() -> None:
    # Given a white square of half the height in the centre of black,
    image = Image.new("L", (400, 200))
    image.paste(255, (150, 50, 250, 150))
    data = encode(image, "PNG")
    # a crop of one half sees nothing else, the whole sees it fill a quarter.
    inside = run(data, crop=0.5).pixels[4:-4, 4:-4]  # bicubic looks two pixels over the edge
    assert inside.min() == 255
    assert run(data, crop=1.0).pixels.mean() == pytest.approx(255 / 4, abs=2)


def test_a_large_jpeg_is_drafted_but_looks_the_same_and_keeps_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode(scene(2400, 1800), "JPEG", quality=90)
    drafted = run(data)
    assert (drafted.width, drafted.height) == (2400, 1800)
    monkeypatch.setattr(module, "reduce_at_decoding", lambda image, needed: None)
    whole = run(data)
    assert np.abs(drafted.pixels.astype(int) - whole.pixels.astype(int)).max() <= 6


def test_a_jpeg_keeps_twice_the_pixels_that_the_resize_needs() -> None:
    for short, expected in ((511, 511), (1023, 1023), (1024, 512), (2100, 525), (6000, 750)):
        with Image.open(io.BytesIO(encode(Image.new("RGB", (short + 8, short)), "JPEG"))) as image:
            module.reduce_at_decoding(image, 2 * 224 / 0.875)
            assert image.height == expected


def test_no_bytes() -> None:
    with pytest.raises(EmptyFile):
        run(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am a text named photo.jpg",
        b"BMW sells cars",
        b"<html><body>404</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n1 0 obj\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        b"\x00" * 1000,
        b"\xff",
    ],
)
def test_what_is_no_image_is_told_so(data: bytes) -> None:
    with pytest.raises(NotAnImage, match="leave the file out, or convert it to one of JPEG"):
        run(data)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.5, 0.9, 0.99])
def test_a_truncated_jpeg(share: float) -> None:
    data = encode(scene(), "JPEG", quality=95)
    with pytest.raises(TruncatedImage):
        run(data[: int(len(data) * share)])


def test_a_truncated_png() -> None:
    data = encode(scene(), "PNG")
    with pytest.raises(TruncatedImage):
        run(data[: len(data) // 2])


@pytest.mark.parametrize("name", GOOD)
def test_a_cut_anywhere_is_an_error_row_or_pixels_but_never_a_crash(name: str) -> None:
    data = GOOD[name]()
    for end in range(1, len(data), max(1, len(data) // 40)):
        try:
            run(data[:end])
        except (NotAnImage, TruncatedImage, DecodeFailed):
            continue


@pytest.mark.parametrize("name", GOOD)
def test_flipped_bytes_are_an_error_row_or_pixels_but_never_a_crash(name: str) -> None:
    data = GOOD[name]()
    dice = np.random.default_rng(7)
    for _ in range(25):
        broken = bytearray(data)
        for place in dice.integers(0, min(len(data), 600), 4):
            broken[place] = int(dice.integers(256))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as on a worker; here they would be DecodeFailed
            try:
                run(bytes(broken), max_pixels=10**6)
            except (NotAnImage, TruncatedImage, TooManyPixels, DecodeFailed):
                continue


def test_a_claim_of_too_many_pixels_is_refused_before_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("a pixel was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as on a worker
        with pytest.raises(TooManyPixels, match="60000 × 60000"):
            run(png(60_000, 60_000, chunk(b"IDAT", b"")), max_pixels=2 * 10**9)
    with pytest.raises(TooManyPixels):  # where Pillow's own guard is the first to see it
        run(png(60_000, 60_000, chunk(b"IDAT", b"")))


def test_the_limit_is_the_last_size_that_passes() -> None:
    data = encode(Image.new("RGB", (100, 50)), "PNG")
    assert run(data, max_pixels=5000).width == 100
    with pytest.raises(TooManyPixels, match="4,999"):
        run(data, max_pixels=4999)


def test_a_bomb_inside_an_icon_is_found() -> None:
    bomb = png(60_000, 60_000, chunk(b"IDAT", b""))
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(bomb), 22) + bomb
    with pytest.raises(TooManyPixels):
        run(icon)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SyntaxError("x"),
        struct.error("x"),
        MemoryError(),
        RecursionError("x"),
        KeyError("x"),
        OSError("x"),
    ],
)
def test_whatever_a_decoder_raises_is_one_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(image: Image.Image) -> None:
        raise error

    data = encode(scene(), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(DecodeFailed) as caught:
        run(data)
    assert caught.value.code == "decode_failed"


def test_a_real_photo_is_decoded_as_pillow_would(photos: dict[str, Path]) -> None:
    with Image.open(photos["tabby-cat"]) as image:
        assert difference(run(photos["tabby-cat"].read_bytes()).pixels, image) < 1.0


def run_frames(*files: bytes, max_pixels: int = 10**8) -> Decoded:
    frames = [Frame(f"s3://b/{n}.png", data) for n, data in enumerate(files)]
    return decode_frames(frames, 32, crop=1.0, interpolation="bicubic", max_pixels=max_pixels)


def test_frames_in_files_are_the_frames_of_an_animation() -> None:
    scenes = [scene().rotate(angle) for angle in (0, 90, 180)]
    files = [encode(one, "PNG") for one in scenes]
    animation = encode(scenes[0], "WEBP", save_all=True, append_images=scenes[1:], lossless=True)

    one, other = (
        run_frames(*files),
        decode_sequence(animation, 32, crop=1.0, interpolation="bicubic", max_pixels=10**8, frames=3),
    )

    assert np.array_equal(one.pixels, other.pixels)
    assert (one.width, one.height) == (other.width, other.height) == (WIDTH, HEIGHT)


def test_frames_may_have_many_sizes() -> None:
    found = run_frames(encode(scene(40, 30), "PNG"), encode(scene(), "JPEG"))
    assert (found.pixels.shape, found.width, found.height) == ((2, 32, 32, 3), 40, 30)


def test_a_bad_frame_is_named() -> None:
    with pytest.raises(NotAnImage, match=r"^The frame s3://b/1\.png: The 4 bytes are of no image format"):
        run_frames(encode(scene(40, 30), "PNG"), b"text")


def test_frames_together_have_ten_times_the_pixels_of_an_image_at_most() -> None:
    still = encode(scene(10, 10), "PNG")
    assert len(run_frames(*[still] * 10, max_pixels=100).pixels) == 10
    with pytest.raises(TooManyPixels, match="The 11 frames that are looked at have more than 1,000 pixels"):
        run_frames(*[still] * 11, max_pixels=100)


def test_an_animation_has_no_more_frames_than_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAMES", 2)
    scenes = [scene(10, 10).rotate(angle) for angle in (0, 90, 180)]
    animation = encode(scenes[0], "GIF", save_all=True, append_images=scenes[1:])
    with pytest.raises(TooManyFrames, match="3 frames"):
        decode_sequence(animation, 32, crop=1.0, interpolation="bicubic", max_pixels=100, frames=3)
