from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers alone. Tests may kill them, and must leave them running."""
    with Stack(tmp_path_factory.mktemp("stack") / "data", workers=0, control=False) as stack:
        yield stack
