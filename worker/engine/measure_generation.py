"""The speed of the parts of a generation, in images/s: what the whole product is measured against.

It knows neither queue nor store, and `ideal_loop` not the engine either: it is what one would write by hand for this
machine, with one file an image and nothing beside it. Imports torch.
"""

from __future__ import annotations

import io
import tarfile
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worker.engine.encode import encode
from worker.engine.precision import autocast
from worker.engine.runtime import Precision
from worker.engine.sampler import Decode, Sampler

_BATCH = 256
"""Of the ideal loop, which is free to choose the fastest."""
_UNDER_WAY = 8
_ENCODED = 4096


def forward_only(sampler: Sampler, count: int, classes: int) -> float:
    """Latents and images of the engine, on the device and back, and no files."""
    labels, numbers = torch.arange(count) % classes, torch.arange(count) // classes
    start = time.perf_counter()
    for _ in sampler.groups(labels, numbers):
        pass
    return count / (time.perf_counter() - start)


def encode_only(images: NDArray[np.uint8], threads: int) -> float:
    """The engine's PNG of each image [n, h, w, c], on `threads` threads."""
    chunks = np.array_split(images, max(1, len(images) // _BATCH))
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda chunk: [encode(image, "png") for image in chunk], chunks))
    return len(images) / (time.perf_counter() - start)


def some_images(sampler: Sampler, classes: int) -> NDArray[np.uint8]:
    """What `encode_only` is given: a few thousand of the model, uint8 [n, h, w, c]."""
    images = sampler.images(torch.arange(_ENCODED) % classes, torch.arange(_ENCODED) // classes)
    return images.movedim(1, -1).contiguous().numpy()


@torch.inference_mode()
def ideal_loop(
    decode: Decode, width: int, device: torch.device, precision: Precision, count: int, classes: int, shard: int
) -> float:
    """Latents, forward, PNG of level 1, tars of `shard` images in memory: the device on this thread, files on another.

    torch has all cores: the other thread takes of them what it needs, and the forward pass what it leaves.
    """
    start = time.perf_counter()
    files: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:
        for first in range(0, count, shard):
            target = io.BytesIO()
            tar = tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            for at in range(first, min(first + shard, count), _BATCH):
                n = min(_BATCH, first + shard - at, count - at)
                z, y = torch.randn(n, width, device=device), (torch.arange(at, at + n) % classes).to(device)
                with autocast(device, precision):
                    made = decode(z, y)
                pixels = ((made.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
                files.append(pool.submit(_write, tar, at, pixels))
                if len(files) > _UNDER_WAY:
                    files.pop(0).result()
            files.append(pool.submit(tar.close))
        for one in files:
            one.result()
    return count / (time.perf_counter() - start)


def _write(tar: tarfile.TarFile, first: int, images: Tensor) -> None:
    for n, pixels in enumerate(images.movedim(1, -1).numpy(), first):
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=1)
        info = tarfile.TarInfo(f"{n:09d}.png")
        info.size = file.tell()
        file.seek(0)
        tar.addfile(info, file)
