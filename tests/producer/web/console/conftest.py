"""A browser without scripts: keeps cookies, and says with each request where it comes from, as browsers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx2
import pytest

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from tests.serving import Api, serving

Browse = Callable[..., httpx2.Client]


@pytest.fixture
def api(settings: Settings, store: ObjectStore) -> Iterator[Api]:
    with serving(settings, store) as made:
        yield made


@pytest.fixture
def browse(api: Api) -> Iterator[Browse]:
    """Return a browser that is signed in with scopes, as an owner."""
    with ExitStack() as stack:

        def made(*scopes: str, owner: str = "ann", person: str = "") -> httpx2.Client:
            headers = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
            client = stack.enter_context(httpx2.Client(base_url=api.url, headers=headers, timeout=30))
            answer = client.post("/console/sign-in", data={"token": api.token(*scopes, owner=owner, person=person)})
            assert answer.status_code == 303, answer.text
            return client

        yield made
