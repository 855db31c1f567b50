"""Measures the parts of a generation in images/s, to compare the whole product with.

It knows neither queue nor store, and `ideal_loop` not the engine either: it is what one would write by hand for this
machine, with one file an image and nothing beside it. Imports torch.
"""

from __future__ import annotations

import io
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worker.engine.generators.sampler import Decode, Sampler
from worker.engine.images.encode import encode
from worker.engine.precision import autocast
from worker.engine.types import Precision

_BATCH = 256
"""The precision of the ideal loop, which may choose the fastest."""
_ENCODED = 4096


def forward_only(sampler: Sampler, count: int, classes: int) -> float:
    """Measure latents and images of the engine, on the device and back, without files."""
    labels, numbers = torch.arange(count) % classes, torch.arange(count) // classes
    start = time.perf_counter()
    for _ in sampler.groups(labels, numbers):
        pass
    return count / (time.perf_counter() - start)


def encode_only(images: NDArray[np.uint8], threads: int) -> float:
    """Measure the engine's PNG encoding of images [n, h, w, c], on `threads` threads."""
    chunks = np.array_split(images, max(1, len(images) // _BATCH))
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda chunk: [encode(image, "png") for image in chunk], chunks))
    return len(images) / (time.perf_counter() - start)


def some_images(sampler: Sampler, classes: int) -> NDArray[np.uint8]:
    """Return a few thousand images of the model for `encode_only`, uint8 [n, h, w, c]."""
    images = sampler.images(torch.arange(_ENCODED) % classes, torch.arange(_ENCODED) // classes)
    return images.movedim(1, -1).contiguous().numpy()


def ideal_loop(
    decode: Decode,
    width: int,
    device: torch.device,
    precision: Precision,
    count: int,
    classes: int,
    *,
    shard: int,
    threads: int,
) -> float:
    """Latents, forward, PNG of level 1, tars of `shard` images in memory: a tar a thread, and a core each for torch.

    Faster here, by 8 %, than one thread at the device with all cores for torch, and another for the files.
    """

    @torch.inference_mode()
    def one(first: int) -> None:
        torch.set_num_threads(1)  # of this thread
        tar = tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        for at in range(first, min(first + shard, count), _BATCH):
            n = min(_BATCH, first + shard - at, count - at)
            z, y = torch.randn(n, width, device=device), (torch.arange(at, at + n) % classes).to(device)
            with autocast(device, precision):
                made = decode(z, y)
            write_shard(tar, at, ((made.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu())
        tar.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(0, count, shard)))
    return count / (time.perf_counter() - start)


def write_shard(tar: tarfile.TarFile, first: int, images: Tensor) -> None:
    """Write images, uint8 [n, c, h, w], to a tar as PNG files numbered from `first`."""
    for n, pixels in enumerate(images.movedim(1, -1).numpy(), first):
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=1)
        info = tarfile.TarInfo(f"{n:09d}.png")
        info.size = file.tell()
        file.seek(0)
        tar.addfile(info, file)
