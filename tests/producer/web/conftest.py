"""An HTTP API for each test, on the session's Redis and S3 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from tests.serving import Api, serving


@pytest.fixture
def api(settings: Settings, store: ObjectStore) -> Iterator[Api]:
    with serving(settings, store) as made:
        yield made
