"""A model so cheap that what is measured or broken takes the time, and images for it."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from tests.mill import Mill

MODEL = "cheap"


def train_cheap(mill: Mill, crops: Path) -> None:
    """Train the model `cheap` on this mill."""
    settings = ["size=16", "batch_size=32", "variant=classic", "learning_rate=0.02"]
    job = mill.client.train("cnn", crops, name=MODEL, epochs=1, settings=settings)
    assert mill.finished(job.id).state == "succeeded"


def image(number: int, version: int = 0) -> bytes:
    """Return a PNG of its own for each number below 65,536 and each version below 256, and so an ETag of its own."""
    made = io.BytesIO()
    Image.new("RGB", (32, 32), (number & 255, number >> 8, version)).save(made, "png")
    return made.getvalue()
