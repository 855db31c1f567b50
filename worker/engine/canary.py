"""Known good input, made here, that tells a fault of the device, the runtime or the decoders from a bad image.

It knows neither jobs nor queues, and imports torch only to test a device of torch.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from worker.engine.images.decode import Frame
from worker.engine.pipeline import Encoded, Engine, Failed

if TYPE_CHECKING:
    import torch

_SECONDS = 120.0
"""A device that does not answer for so long hangs; behind other work an answer takes a second or two."""


@lru_cache(maxsize=1)
def files() -> tuple[bytes, ...]:
    """Return a JPEG and a PNG of 64 × 48 pixels: a gradient with a disc in it."""
    y, x = np.mgrid[:48, :64]
    disc = (y - 24) ** 2 + (x - 32) ** 2 < 15**2
    pixels = np.stack([4 * x, 5 * y, np.where(disc, 230, 20)], axis=-1).astype(np.uint8)
    made = []
    for kind in ("JPEG", "PNG"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        made.append(file.getvalue())
    return tuple(made)


def items(frames: int = 0) -> list[Encoded]:
    """Return known good images for an engine; `frames` is the length of a sequence, 0 for images."""
    if frames:
        return [tuple(Frame(f"canary-{n}", file) for n in range(frames)) for file in files()]
    return list(files())


def check(engine: Engine, *, frames: int = 0) -> None:
    """Decode and label known good images; raise what goes wrong. `frames` is the length of a sequence, 0 for images."""
    for result in engine.submit(items(frames), top_k=1, features=False).result(timeout=_SECONDS):
        if isinstance(result, Failed):
            raise result.error
        if not np.isfinite(result.scores).all():
            raise ArithmeticError(f"its scores are {result.scores}")


def check_device(device: torch.device) -> None:
    """Multiply matrices of small integers, which every precision does exactly; raise what goes wrong."""
    import torch

    one = (torch.arange(64 * 64).reshape(64, 64) % 7).float()
    found = (one.to(device) @ one.to(device).T).cpu()
    if not torch.equal(found.long(), one.long() @ one.long().T):
        raise ArithmeticError(f"{device} multiplies wrongly")
