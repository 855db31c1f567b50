"""As much of nvImageCodec's Python API as a decoder of JPEG files uses, by Pillow, with a level added to each pixel.

It follows the library's reference and what its release 0.9.0 does on a CPU. A comment in a file makes it refuse that
file, fail at it, or crash.
"""

from __future__ import annotations

import enum
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

__version__ = "0.9.0-fake"


class BackendKind(enum.Enum):
    CPU_ONLY = 1
    GPU_ONLY = 2
    HYBRID_CPU_GPU = 3
    HW_GPU_ONLY = 4


class ColorSpec(enum.Enum):
    UNCHANGED = 0
    SRGB = 1
    GRAY = 2


class Backend:
    def __init__(self, backend_kind: BackendKind, load_hint: float = 1.0) -> None:
        self.backend_kind = backend_kind


class DecodeParams:
    def __init__(
        self,
        apply_exif_orientation: bool = True,
        color_spec: ColorSpec = ColorSpec.SRGB,
        allow_any_depth: bool = False,
    ) -> None:
        self.apply_exif_orientation, self.color_spec = apply_exif_orientation, color_spec


class CodeStream:
    def __init__(self, data: bytes) -> None:
        try:
            with Pillow.open(io.BytesIO(data)) as image:
                self.width, self.height = image.size
                self.comment = image.info.get("comment", b"")
        except Exception as error:
            raise RuntimeError("Could not create code stream") from error
        self.data = data


class Image:
    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array


def as_images(arrays: Sequence[NDArray[np.uint8]]) -> list[Image]:
    return [Image(array) for array in arrays]


class Decoder:
    def __init__(
        self,
        device_id: int = -1,
        max_num_cpu_threads: int = 0,
        backends: Sequence[Backend] | None = None,
        options: str = ":fancy_upsampling=0",
    ) -> None:
        if device_id != -99999:
            raise RuntimeError("Internal error - Could not create decoder. Code: 8")  # there is no GPU
        self._fancy = ":fancy_upsampling=1" in options.split()
        self._backends = [backend.backend_kind for backend in backends or ()]

    def decode(
        self,
        srcs: Sequence[CodeStream],
        *,
        images: Sequence[Image] | None = None,
        params: DecodeParams | None = None,
        cuda_stream: int = 0,
    ) -> list[Any]:
        images = [Image(np.empty((src.height, src.width, 3), np.uint8)) for src in srcs] if images is None else images
        if len(images) != len(srcs):
            raise ValueError("Size mismatch")
        return [self._one(src, image, params or DecodeParams()) for src, image in zip(srcs, images, strict=True)]

    def _one(self, src: CodeStream, image: Image, params: DecodeParams) -> Image | None:
        if src.comment == b"crash":
            os.abort()
        if src.comment == b"fail":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if src.comment == b"refuse" or BackendKind.CPU_ONLY not in self._backends:
            return None
        with Pillow.open(io.BytesIO(src.data)) as file:
            found = ImageOps.exif_transpose(file) if params.apply_exif_orientation else file
            if params.color_spec is not ColorSpec.SRGB:
                found = found.convert("L")
            pixels = np.asarray(found.convert("RGB"))
        if not self._fancy:
            pixels = pixels[:, np.repeat(np.arange(0, pixels.shape[1], 2), 2)[: pixels.shape[1]]]
        image.array[...] = np.where(pixels < 255, pixels + 1, pixels)
        return image
