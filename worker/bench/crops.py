"""Makes the photos that are measured: crops of a few, each another one. It knows no worker."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from contract.errors import InvalidSource

_SIZE = (500, 375)


def crops(photos: Path, count: int, into: Path) -> list[Path]:
    """Return `count` distinct JPEG crops of 500×375 (quality 90) of the photos in a folder, the same each time."""
    source_images = [Image.open(p).convert("RGB") for p in sorted(photos.glob("*.jpg"))]
    if not source_images:
        raise InvalidSource(f"{photos} holds no .jpg files to measure with; name another folder with --photos.")
    rng = random.Random(0)
    plans = []
    for n in range(count):
        image = source_images[n % len(source_images)]
        part = rng.uniform(0.55, 1.0)
        width = int(min(image.width, image.height * 4 / 3) * part)
        height = int(width * 3 / 4)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        plans.append((n, image, (left, top, left + width, top + height)))

    def write(plan: tuple[int, Image.Image, tuple[int, int, int, int]]) -> Path:
        n, image, box = plan
        path = into / f"photo-{n:05d}.jpg"
        image.resize(_SIZE, Image.Resampling.BICUBIC, box=box).save(path, quality=90)
        return path

    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, plans))
