"""Decodes image files to the uint8 pixels that a model takes; no other module opens an image.

It knows neither where the bytes came from nor what the pixels are for. Every error of a decoder, hostile bytes
included, becomes an ImageError. The memory that an image takes is reserved first (`worker.engine.budget`), as its
header states it, and given back once its pixels are as few as the model takes.
"""

from __future__ import annotations

import io
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

# Imported by name: otherwise Pillow imports all of its forty plugins at the first file that is not in one of its five
# common formats.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from contract.data.sequences import MAX_FRAMES, MAX_IMAGES, spread
from contract.errors import (
    DecodeFailed,
    EmptyFile,
    ImageError,
    NotAnImage,
    TooManyFrames,
    TooManyPixels,
    TruncatedImage,
)
from worker.engine.budget import Reservation, budget
from worker.engine.images import cost
from worker.engine.images.plain_jpeg import is_plain
from worker.engine.images.quiet import silence_libtiff, silence_pillow
from worker.engine.images.regions import Region, Square
from worker.engine.images.shrink import shrunk

if TYPE_CHECKING:
    from contract.models.registry import Preprocess

T = TypeVar("T")

Interpolation = Literal["bicubic", "bilinear"]

# Pillow reads forty more, among them EPS, which would run Ghostscript on untrusted input.
_FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "MPO", "ICO", "AVIF") if name in Image.OPEN
)
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a")
_TRAILERS = (b"\xff\xd9", b"IEND\xaeB`\x82", b";")  # how a JPEG, a PNG and a GIF end
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image of each EXIF orientation upright; EXIF 2.32, table 4, tag 274."""

# Pillow warns about odd metadata in files that it reads well; on a worker that is one line of noise per photo.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
silence_pillow()
silence_libtiff()


@dataclass(frozen=True, slots=True)
class Frame:
    """A file that is one frame of a sequence: its address and its bytes."""

    uri: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image: `pixels` uint8 [size, size, 3], RGB; `width` and `height` of the whole image, upright.

    For a sequence `pixels` is [t, size, size, 3], and `width` and `height` are those of its first frame. With a
    `region`, whose pixels they are, they are still to be resized.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    region: Region | None = None


def decode(
    data: bytes,
    size: int,
    *,
    crop: float,
    interpolation: Interpolation,
    max_pixels: int,
    regions: bool = False,
) -> Decoded:
    """Decode the upright centre square of an image, `crop` × its short side, and resize it to `size` × `size`.

    With `regions` the resize is left to whoever takes the region, if the image is small, of 8 bits, and gray or RGB.
    An animation gives its first frame, transparency becomes white, and 16 bits are scaled to 8. Raises only EmptyFile,
    NotAnImage, TruncatedImage, TooManyPixels (from the header, before any pixel is decoded), or DecodeFailed for any
    other error of a decoder.
    """
    if not data:
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    try:
        return _in_budget(lambda memory: _decode(data, size, crop, interpolation, max_pixels, memory, regions))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(max_pixels) from error
    except Exception as error:  # decoders raise ValueError, SyntaxError, struct.error, MemoryError, …
        _fail(data, error)


def open_item(
    data: bytes | tuple[Frame, ...], how: Preprocess, *, max_pixels: int, frames: int, regions: bool = False
) -> Decoded:
    """Decode an image or, with `frames`, a sequence of at most that many frames, as the preprocessing `how` says.

    `regions` is for `decode`, and has no meaning for sequences. A sequence is either one file, or a tuple with a file
    for each frame. Raises what `decode` raises.
    """
    if isinstance(data, tuple):
        return decode_frames(data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=max_pixels)
    if frames:
        return decode_sequence(
            data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=max_pixels, frames=frames
        )
    return decode(
        data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=max_pixels, regions=regions
    )


def decode_frames(
    files: Sequence[Frame], size: int, *, crop: float, interpolation: Interpolation, max_pixels: int
) -> Decoded:
    """Decode a sequence of files, each as `decode` does; their sizes may differ.

    `max_pixels` limits each frame, and ten times as much the whole sequence. Raises what `decode` raises, naming the
    frame.
    """
    frames: list[Decoded] = []
    seen = 0
    for file in files:
        try:
            frame = decode(file.data, size, crop=crop, interpolation=interpolation, max_pixels=max_pixels)
        except ImageError as error:
            raise error.of_frame(file.uri) from error
        seen += frame.width * frame.height
        if seen > MAX_IMAGES * max_pixels:
            raise TooManyPixels(
                f"The {len(files)} frames that are looked at have more than {MAX_IMAGES * max_pixels:,} pixels "
                "together; shrink them, or raise IMAGEMILL_MAX_IMAGE_PIXELS."
            )
        frames.append(frame)
    return Decoded(np.stack([frame.pixels for frame in frames]), frames[0].width, frames[0].height)


def decode_sequence(
    data: bytes, size: int, *, crop: float, interpolation: Interpolation, max_pixels: int, frames: int
) -> Decoded:
    """Decode at most `frames` evenly spaced frames of an animation, each as `decode` does.

    A still image is a sequence of one. `max_pixels` limits each frame, and ten times as much the whole sequence.
    Raises what `decode` raises.
    """
    if not data:
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    try:
        return _in_budget(lambda memory: _decode_sequence(data, size, crop, interpolation, max_pixels, frames, memory))
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(max_pixels) from error
    except Exception as error:
        _fail(data, error)


class _Memory:
    """The pixels that one image may take; asked for once, when its header has been read."""

    def __init__(self) -> None:
        self._reservation: Reservation | None = None

    def take(self, count: int) -> None:
        """Wait for `count` bytes."""
        self._reservation = budget().pixels.ask(count)
        self._reservation.wait()

    def release(self) -> None:
        if self._reservation is not None:
            self._reservation.release()


def _in_budget(work: Callable[[_Memory], T]) -> T:
    """Return what `work` returns, and give its memory back when nothing of the image is left."""
    memory = _Memory()
    try:
        return work(memory)
    except Exception as error:
        _let_go(error)
        raise
    finally:
        memory.release()


def _let_go(error: BaseException | None) -> None:
    """Drop the images that the frames of an error, and of those behind it, hold on to."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _open(data: bytes, max_pixels: int, memory: _Memory) -> Image.Image:
    """Open an image, having checked its size and, for formats that decode on opening, reserved its memory."""
    # Pillow's own limit covers what is seen too late here: the canvas of a WebP, which is allocated on opening, and
    # nested images (ICO, later frames of a GIF).
    Image.MAX_IMAGE_PIXELS = max_pixels
    early = cost.size_before_opening(data)
    if early is not None:
        _check_pixels(*early, max_pixels)
        memory.take(cost.on_opening(data, *early))
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    _check_pixels(*image.size, max_pixels)
    return image


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise _too_many_pixels(limit, width, height)


def _decode_sequence(
    data: bytes, size: int, crop: float, interpolation: Interpolation, max_pixels: int, frames: int, memory: _Memory
) -> Decoded:
    with _open(data, max_pixels, memory) as image:
        width, height = image.size
        count = getattr(image, "n_frames", 1)
        if count > MAX_FRAMES:
            raise too_many_frames(count)
        _check_pixels(width, height * count, MAX_IMAGES * max_pixels)
        if cost.size_before_opening(data) is None:
            memory.take(cost.of(image, data, image.size, frames=True))
        pixels = []
        for number in spread(count, frames):
            image.seek(number)
            image.load()
            pixels.append(np.asarray(_to_rgb(shrunk(image, size, crop, _RESAMPLING[interpolation]))))
    return Decoded(np.stack(pixels), width, height)


def look(data: bytes) -> tuple[int, int, bool]:
    """Return width, height and whether the image is gray, from its header alone. Raises what `decode` raises."""
    if not data:
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    try:
        return _in_budget(lambda memory: _look(data, memory))
    except ImageError:
        raise
    except Exception as error:
        _fail(data, error)


def _look(data: bytes, memory: _Memory) -> tuple[int, int, bool]:
    if early := cost.size_before_opening(data):
        memory.take(cost.on_opening(data, *early))
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return image.width, image.height, _is_gray(image)


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        colours = image.getpalette() or []
        return colours[0::3] == colours[1::3] == colours[2::3]
    return image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")


def _decode(
    data: bytes, size: int, crop: float, interpolation: Interpolation, max_pixels: int, memory: _Memory, regions: bool
) -> Decoded:
    with _open(data, max_pixels, memory) as image:
        width, height = image.size
        if image.format in ("JPEG", "MPO"):
            reduce_at_decoding(image, 2 * size / crop)
        if cost.size_before_opening(data) is None:
            memory.take(cost.of(image, data, (width, height), frames=False))
        if image.format not in ("JPEG", "MPO"):
            image.load()
            width, height = image.size  # an ICO reveals its true size only after loading
            _check_pixels(width, height, max_pixels)
        return squared(image, (width, height), _orientation(image), size, crop, interpolation, regions=regions)


def squared(
    image: Image.Image,
    extent: tuple[int, int],
    orientation: int,
    size: int,
    crop: float,
    interpolation: Interpolation,
    *,
    regions: bool,
) -> Decoded:
    """Return the upright centre square of a decoded image, whose file has an `extent` of width and height."""
    width, height = extent
    upright = (height, width) if orientation >= 5 else (width, height)
    looked_at = Square.of(*image.size, size, crop, interpolation) if regions and _is_plain(image) else None
    if looked_at is not None and looked_at.small:
        pixels = np.asarray(_to_rgb(image.crop(looked_at.box)))
        return Decoded(pixels, *upright, looked_at.region(pixels, orientation))
    square = _to_rgb(shrunk(image, size, crop, _RESAMPLING[interpolation]))
    if orientation in _UPRIGHT:
        # After the resize: turning 224 × 224 pixels costs nothing, and a centre crop is unaffected.
        square = square.transpose(_UPRIGHT[orientation])
    return Decoded(np.asarray(square), *upright)


def squared_array(
    pixels: NDArray[np.uint8], orientation: int, size: int, crop: float, interpolation: Interpolation, *, regions: bool
) -> Decoded:
    """Return what `squared` returns of an RGB image, uint8 [h, w, 3]; a region without a detour by Pillow.

    Pillow copies the whole image in and out: 184 µs for 500 × 375, and 20 without.
    """
    height, width, _ = pixels.shape
    looked_at = Square.of(width, height, size, crop, interpolation) if regions else None
    if looked_at is None or not looked_at.small:
        image = Image.fromarray(pixels)
        return squared(image, (width, height), orientation, size, crop, interpolation, regions=regions)
    left, top, right, bottom = looked_at.box
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    upright = (height, width) if orientation >= 5 else (width, height)
    return Decoded(part, *upright, looked_at.region(part, orientation))


def plain_header(data: bytes, size: int, *, crop: float, max_pixels: int) -> tuple[int, int, int] | None:
    """Return width, height and EXIF orientation of a JPEG that `decode` is certain to decode, and in full.

    None for other files, also for those that `decode` would let libjpeg reduce.
    """
    if not is_plain(data):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if image.format != "JPEG" or width * height > max_pixels or _reduction(image.size, 2 * size / crop):
                return None
            return width, height, _orientation(image)
    except Exception:  # `decode` says what is wrong with it
        return None


def _is_plain(image: Image.Image) -> bool:
    """Return whether Pillow resizes an image as it is, and gray or RGB: the same before and after the conversion."""
    return image.mode in ("RGB", "L") and not image.has_transparency_data


def reduce_at_decoding(image: Image.Image, needed: float) -> None:
    """Make libjpeg decode at 1/2, 1/4 or 1/8 if the short side keeps `needed` pixels.

    Images of 2048 × 1536 decode at 50 per second in full, at 97 with twice the pixels that the resize needs, and at 141
    with just enough. Just enough changed 7 % of the labels, even confident ones; twice as many changed 1 %, none of
    them confident. Hence twice.
    """
    width, height = image.size
    if scale := _reduction(image.size, needed):
        image.draft(None, (width // scale, height // scale))


def _reduction(extent: tuple[int, int], needed: float) -> int:
    """Return by what libjpeg divides both sides so that the short one keeps `needed` pixels; 0 for nothing."""
    return next((scale for scale in (8, 4, 2) if min(extent) // scale >= needed), 0)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or unreadable."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata is no reason to refuse a good photo
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def too_many_frames(count: int) -> TooManyFrames:
    """Return the error for a sequence of `count` frames."""
    return TooManyFrames(f"The sequence has {count:,} frames; the limit is {MAX_FRAMES:,}. Cut it into shorter ones.")


def _too_many_pixels(limit: int, width: int = 0, height: int = 0) -> TooManyPixels:
    claim = f"{width} × {height} pixels" if width else "more pixels than it may"
    return TooManyPixels(
        f"The image claims {claim}, the limit is {limit:,}; shrink it, or raise IMAGEMILL_MAX_IMAGE_PIXELS."
    )


def _fail(data: bytes, error: Exception) -> NoReturn:
    """Raise the ImageError that explains `error` to someone who has only the file."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        if not data.startswith(_MAGIC):
            raise NotAnImage(
                f"The {len(data)} bytes are of no image format that is read here; "
                f"leave the file out, or convert it to one of {', '.join(_FORMATS)}."
            ) from error
        if not data.rstrip(b"\0").endswith(_TRAILERS):
            raise TruncatedImage("The file ends, or breaks, within its header; upload it again.") from error
    if isinstance(error, EOFError) or "truncated" in said.lower():
        raise TruncatedImage("The file ends before the image does; upload it again.") from error
    raise DecodeFailed(f"The image cannot be decoded ({said}); save it anew in an image editor.") from error
