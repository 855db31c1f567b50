"""Decodes JPEG files by nvImageCodec, on a GPU or on a CPU. It knows no sources and no models.

The package is optional and imported at the first use (https://docs.nvidia.com/cuda/nvimagecodec/py_api.html).
"""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.errors import InvalidSettings

_CPU_ONLY = -99999
"""NVIMGCODEC_DEVICE_CPU_ONLY."""
LEVELS = 8
"""How far, of 255, a pixel of its own trial may be from Pillow's: rounding gives a few. Without fancy upsampling, the
colours beside an edge differ by ten times as much."""


_OPTIONS = ":fancy_upsampling=1"
"""As libjpeg does by default (https://docs.nvidia.com/cuda/nvimagecodec/codec_options.html)."""


class Codec:
    """A decoder of JPEG files, which has proven itself beside Pillow; any thread may use it.

    `device` is the number of a GPU, or None for the CPU; `more` are further options of the library. Raises
    InvalidSettings, with a sentence of what is missing or differs.
    """

    def __init__(self, device: int | None, *, threads: int, more: str = "") -> None:
        try:
            # Its name at run time: no stubs exist, and without the package nothing here may fail.
            self._module: Any = importlib.import_module("nvidia.nvimgcodec")
        except ImportError as error:
            raise InvalidSettings(
                f"nvImageCodec is not installed ({error}); pip install 'nvidia-nvimgcodec-cu13[nvjpeg]', or cu12 for "
                "a driver of CUDA 12."
            ) from error
        module = self._module
        # One kind of backend, or which of them takes an image, and with it the last bits, would depend on the load. The
        # JPEG engine of a GPU is another kind.
        kind = module.BackendKind.CPU_ONLY if device is None else module.BackendKind.HYBRID_CPU_GPU
        try:
            self._decoder = module.Decoder(
                device_id=_CPU_ONLY if device is None else device,
                max_num_cpu_threads=threads,
                backends=[module.Backend(kind)],
                options=f"{_OPTIONS} {more}".strip(),
            )
            self._params = module.DecodeParams(
                apply_exif_orientation=False, color_spec=module.ColorSpec.SRGB, allow_any_depth=False
            )
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InvalidSettings(f"nvImageCodec {self.version} does not start ({_line(error)}).") from error
        self._lock = threading.Lock()
        if problem := self._differs():
            raise InvalidSettings(f"nvImageCodec {self.version} {problem}.")

    @property
    def version(self) -> str:
        return str(getattr(self._module, "__version__", "of no version"))

    def decode(self, files: Sequence[bytes], extents: Sequence[tuple[int, int]]) -> list[NDArray[np.uint8] | None]:
        """Decode files whose width and height are known, together: uint8 [h, w, 3], RGB, as they lie in the file.

        None in place of a file that it refuses.
        """
        module = self._module
        found: list[NDArray[np.uint8] | None] = [None] * len(files)
        taken: list[int] = []
        streams: list[Any] = []
        targets: list[NDArray[np.uint8]] = []
        for n, (file, (width, height)) in enumerate(zip(files, extents, strict=True)):
            try:
                stream = module.CodeStream(file)
                if (stream.width, stream.height) != (width, height):
                    continue
            except RuntimeError:  # it cannot parse it
                continue
            taken.append(n)
            streams.append(stream)
            targets.append(np.empty((height, width, 3), np.uint8))
        if taken:
            with self._lock:  # it uses several threads for the files of a call
                answers = self._decoder.decode(streams, images=module.as_images(targets), params=self._params)
            for n, target, answer in zip(taken, targets, answers, strict=True):
                found[n] = None if answer is None else target
        return found

    def _differs(self) -> str:
        """Return how pictures of each kind differ from Pillow's; nothing if they do not."""
        files = trials()
        wanted = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        found = self.decode(files, [(one.shape[1], one.shape[0]) for one in wanted])
        for one, other in zip(found, wanted, strict=True):
            if one is None:
                return "decodes no JPEG here; see whether nvJPEG is installed"
            apart = int(np.abs(one.astype(np.int16) - other).max())
            if apart > LEVELS:
                return f"makes pixels that are {apart} of 255 levels from Pillow's, and {LEVELS} are the limit"
        return ""


def trials() -> list[bytes]:
    """Return pictures with edges between colours, in each subsampling and in gray, of no whole number of blocks."""
    y, x = np.mgrid[0:93, 0:125]
    waves = np.stack([127 + 90 * np.sin(x / 9.0), 127 + 90 * np.sin(y / 7.0), 127 + 90 * np.sin((x + y) / 11.0)], 2)
    waves[20:60, 30:80] = (220, 30, 30)
    waves[45:80, 60:110] = (30, 60, 220)
    picture = Image.fromarray(waves.astype(np.uint8))
    files = []
    for image, subsampling in ((picture, 0), (picture, 1), (picture, 2), (picture.convert("L"), 0)):
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=92, subsampling=subsampling)
        files.append(sink.getvalue())
    return files


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
