from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paced_mill import PacedMill
from tests.sick_mill import many

IMAGES = 640
SHARD = 16


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacedMill]:
    """Two workers that may be slowed down, a controller and a clock, on servers that may be broken."""
    # A busy machine renews a lease late: one of 2 s may lapse, and its shard begin again, though nothing was killed.
    with PacedMill(tmp_path_factory.mktemp("mill"), workers=2, lease_seconds=5.0).running() as made:
        yield made


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> Path:
    """640 files: each photo many times under its own name."""
    return many(tmp_path_factory.mktemp("photos"), photos, IMAGES)


@pytest.fixture
def keys() -> list[str]:
    return [f"{n:04d}.jpg" for n in range(IMAGES)]
