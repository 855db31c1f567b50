"""The one place that opens an image: bytes in, the pixels that a model wants out, as uint8.

It knows neither where the bytes came from nor what the pixels are for. Whatever a decoder does wrong
with hostile bytes comes out as an ImageError.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

# Imported by name: Pillow would otherwise import all of its forty plugins at the first file that is
# none of its five common formats.
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
from contract.models.registry import Preprocess

Interpolation = Literal["bicubic", "bilinear"]

# Pillow reads forty more, among them EPS, which starts Ghostscript on what it was given.
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
"""What turns an image of this EXIF orientation upright; EXIF 2.32, table 4, tag 274."""

# Pillow warns of odd metadata in files that it reads well; on a worker that is noise, one line a photo.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes of a file that is one frame of a sequence, and the address that names it."""

    uri: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image: `pixels` uint8 [size, size, 3], RGB; `width` and `height` of the whole as shown.

    Of a sequence `pixels` are [t, size, size, 3], `width` and `height` those of its first frame.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


def decode(data: bytes, size: int, *, crop: float, interpolation: Interpolation, max_pixels: int) -> Decoded:
    """The upright centre square of an image file, `crop` × its short side, resized to `size` × `size`.

    The first frame of an animation; transparency on white; 16 bits scaled to 8. Raises EmptyFile,
    NotAnImage, TruncatedImage, TooManyPixels (by the header, before a pixel is decoded) or DecodeFailed
    (whatever else a decoder raises); nothing else.
    """
    if not data:
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    try:
        return _decode(data, size, crop, interpolation, max_pixels)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(max_pixels) from error
    except Exception as error:  # decoders raise ValueError, SyntaxError, struct.error, MemoryError, …
        _fail(data, error)


def open_item(data: bytes | tuple[Frame, ...], how: Preprocess, *, max_pixels: int, frames: int) -> Decoded:
    """What a model with this preprocessing wants: an image, or a sequence of at most so many `frames`.

    The frames of a sequence lie in one file, or each in its own.
    """
    if isinstance(data, tuple):
        return decode_frames(data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=max_pixels)
    if frames:
        return decode_sequence(
            data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=max_pixels, frames=frames
        )
    return decode(data, how.size, crop=how.crop, interpolation=how.interpolation, max_pixels=max_pixels)


def decode_frames(
    files: Sequence[Frame], size: int, *, crop: float, interpolation: Interpolation, max_pixels: int
) -> Decoded:
    """A sequence of files, each as `decode` gives one; their sizes may differ, as they do where somebody is followed.

    `max_pixels` holds for a frame, and ten times as much for all together. Raises what `decode` raises, naming the
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
    """The frames of an animation, each as `decode` gives one; of more than `frames` that many, evenly spread.

    A still image is a sequence of one. `max_pixels` holds for a frame, and ten times as much for all together.
    Raises what `decode` raises.
    """
    if not data:
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    try:
        return _decode_sequence(data, size, crop, interpolation, max_pixels, frames)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(max_pixels) from error
    except Exception as error:
        _fail(data, error)


def _decode_sequence(
    data: bytes, size: int, crop: float, interpolation: Interpolation, max_pixels: int, frames: int
) -> Decoded:
    Image.MAX_IMAGE_PIXELS = max_pixels
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
        count = getattr(image, "n_frames", 1)
        if count > MAX_FRAMES:
            raise too_many_frames(count)
        if width * height > max_pixels or width * height * count > MAX_IMAGES * max_pixels:
            raise _too_many_pixels(max_pixels, width, height)
        pixels = []
        for number in spread(count, frames):
            image.seek(number)
            image.load()
            pixels.append(np.asarray(_to_rgb(_resized(image, size, crop, _RESAMPLING[interpolation]))))
    return Decoded(np.stack(pixels), width, height)


def look(data: bytes) -> tuple[int, int, bool]:
    """Width, height and whether the image is gray, by its header alone. Raises what `decode` raises."""
    if not data:
        raise EmptyFile("The file has no bytes; upload it again or leave it out.")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return image.width, image.height, _is_gray(image)
    except Exception as error:
        _fail(data, error)


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        colours = image.getpalette() or []
        return colours[0::3] == colours[1::3] == colours[2::3]
    return image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")


def _decode(data: bytes, size: int, crop: float, interpolation: Interpolation, max_pixels: int) -> Decoded:
    # Pillow's own limit guards what our check below comes too late for: the canvas of a WebP, which is
    # allocated on opening, and pictures inside pictures (ICO, later frames of a GIF).
    Image.MAX_IMAGE_PIXELS = max_pixels
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise _too_many_pixels(max_pixels, width, height)
        if image.format in ("JPEG", "MPO"):
            _draft(image, 2 * size / crop)
        else:
            image.load()
            width, height = image.size  # an ICO tells its true size only now
            if width * height > max_pixels:
                raise _too_many_pixels(max_pixels, width, height)
        square = _to_rgb(_resized(image, size, crop, _RESAMPLING[interpolation]))
        orientation = _orientation(image)
    if orientation in _UPRIGHT:
        # After the resize: turning 224 × 224 pixels is free, and a centre crop does not mind.
        square = square.transpose(_UPRIGHT[orientation])
    if orientation >= 5:
        width, height = height, width
    return Decoded(np.asarray(square), width, height)


def _draft(image: Image.Image, needed: float) -> None:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 where the short side keeps `needed` pixels.

    2048 × 1536 decode at 50 a second in full, at 97 with twice the pixels that the resize needs, at 141
    with just enough. The last changed 7 % of the labels, even of sure ones, twice as many 1 %, none of
    them sure: hence twice.
    """
    width, height = image.size
    for scale in (8, 4, 2):
        if min(width, height) // scale >= needed:
            image.draft(None, (width // scale, height // scale))
            return


def _resized(image: Image.Image, size: int, crop: float, resampling: Image.Resampling) -> Image.Image:
    """The centre crop at `size` × `size`, in one pass (two passes: 400 images/s a core, one: 560)."""
    image = _linear(image)
    width, height = image.size
    side = crop * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), resampling, box=(left, top, left + side, top + side))


def _linear(image: Image.Image) -> Image.Image:
    """The image in a mode whose pixels can be averaged, of 8 bits a channel, at its full size."""
    if image.mode.startswith("I") or image.mode == "F":
        image.load()
        return Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        return image.convert("RGBA")  # resize weighs RGBA by its alpha
    if image.mode in ("RGB", "L", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_8_bits(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Gray pixels of 16 bits, 32 bits or floating point, [h, w], as uint8.

    White is 65535 for integers, 1 for floats within 0 to 1 and 255 for floats within 0 to 255; any
    other range is stretched, since such files do not say what is white.
    """
    values = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    integers = np.issubdtype(pixels.dtype, np.integer)
    for white in (65535.0,) if integers else (1.0, 255.0):
        if low >= 0.0 and high <= white:
            low, high = 0.0, white
            break
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    gray: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return gray


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken metadata is no reason to refuse a good photo
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def too_many_frames(count: int) -> TooManyFrames:
    """What is wrong with a sequence of so many frames."""
    return TooManyFrames(
        f"The sequence has {count:,} frames, more than the {MAX_FRAMES:,} that it may; cut it into shorter ones."
    )


def _too_many_pixels(limit: int, width: int = 0, height: int = 0) -> TooManyPixels:
    claim = f"{width} × {height} pixels" if width else "more pixels than it may"
    return TooManyPixels(
        f"The image claims {claim}, the limit is {limit:,}; shrink it, or raise IMAGEMILL_MAX_IMAGE_PIXELS."
    )


def _fail(data: bytes, error: Exception) -> NoReturn:
    """Raise the ImageError that says what `error` means to someone who has only the file."""
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
