"""Two workers whose runtime falls ill when it is told to, and folders with many photos for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.paced_mill import PacedMill


@contextmanager
def sick_mill(data: Path, **settings: Any) -> Iterator[PacedMill]:
    """Run workers of `tests.sick`, which obey the file `sick` in their cache and start again at once."""
    with (
        pytest.MonkeyPatch.context() as patched,
        PacedMill(data, workers=2, app="tests.sick", **settings).running() as made,
    ):
        patched.setattr("deploy.local.supervisor.BACK_OFF", (0.1, 0.2))
        yield made


def many(folder: Path, photos: Mapping[str, Path], count: int) -> Path:
    """Fill a new folder with `count` files, 0000.jpg and so on: each photo many times under its own name."""
    folder.mkdir(exist_ok=True)
    files = list(photos.values())
    for n in range(count):
        (folder / f"{n:04d}.jpg").symlink_to(files[n % len(files)])
    return folder
