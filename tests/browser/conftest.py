"""One stack and one Chromium for all tests, a window of its own for each.

The browser is Debian's, or the program that `CHROMIUM` names. Without one these tests skip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from contract.web.tokens import Tokens
from producer import Client
from tests.browser.chromium import find, launched
from tests.browser.pages import paths
from tests.browser.person import Person
from tests.hooks import told_webhook
from tests.mill import Mill
from tests.serving import Api, serving
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
OWNER = "ann"
_PATIENCE = 60_000.0
"""Milliseconds that a page may take on a busy machine."""


@dataclass(frozen=True)
class Stack:
    """Real processes, the web server before them, and what Ann has there already."""

    mill: Mill
    api: Api
    photos: str
    """The prefix of the photos that ship, and of a file that is no image."""
    labelled: str
    """A job that labelled them."""
    made: str
    """A job that made images for a dataset."""
    dataset: str
    webhook: str
    """A webhook that nobody answers, with messages in each state."""

    @property
    def client(self) -> Client:
        return self.mill.client.acting_as(OWNER)

    def paths(self) -> list[str]:
        """Return an address of each page."""
        return paths(self.labelled, f"{MODEL}@1", self.made, self.dataset, self.webhook)

    def tokens(self) -> Tokens:
        return Tokens(self.api.store)


@pytest.fixture(scope="package")
def chromium() -> str:
    """Return the program, or skip."""
    try:
        return find()
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium) as made:
        yield made


@pytest.fixture(scope="package")
def stack(chromium: str, tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> Iterator[Stack]:
    mill = Mill(tmp_path_factory.mktemp("mill"), workers=1, fetch_buckets="pictures")
    with mill.running(), serving(mill.settings, mill.client.backend.store) as api:
        pictures = mill.bucket("pictures")
        for name, path in photos.items():
            pictures.put(f"photos/{name}.jpg", path.read_bytes())
        pictures.put("photos/broken.jpg", b"no image")
        client = mill.client.acting_as(OWNER)
        mill.client.serve(MODEL)
        job = client.classify("s3://pictures/photos/", model=MODEL, job="animals", max_errors="10%")
        made = client.synthesize("fashion-gan", gate="fashion-cnn", per_class=2, extend="garments", job="wardrobe")
        client.add_watch("camera", "s3://pictures/camera/", model=MODEL)
        arguments = {"source": "s3://pictures/photos/", "model": MODEL, "max_errors": "10%"}
        client.add_schedule("nightly", "classify", arguments, cron="0 2 1 1 *")
        assert {mill.finished(each.id).state for each in (job, made)} == {"succeeded"}
        wait_until(lambda: mill.client.served()[0].ready, 60, "a worker to serve the model")
        hook = told_webhook(api.store, OWNER, "/told", ("waiting", "delivered", "failed"))
        yield Stack(mill, api, "s3://pictures/photos/", job.id, made.id, "garments", hook)


@pytest.fixture
def people(browser: Browser, stack: Stack) -> Iterator[Callable[..., Person]]:
    """Return a window for somebody; each has cookies of its own, and must have nothing to complain about."""
    with ExitStack() as windows:
        made: list[Person] = []

        def person() -> Person:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            windows.callback(context.close)
            context.set_default_timeout(_PATIENCE)
            made.append(Person(context, stack.api.url))
            return made[-1]

        expect.set_options(timeout=_PATIENCE)
        yield person
        assert [one for each in made for one in each.complaints()] == []


@pytest.fixture
def ann(people: Callable[..., Person], stack: Stack) -> Person:
    """Return a window in which Ann is signed in, with all that an operator may do."""
    person = people()
    person.sign_in(stack.api.token("admin", owner=OWNER))
    return person
