"""Real servers for every test: a Redis and an S3 server for each session, a namespace and a bucket for each test.

Under pytest-xdist each process is a session, so that tests in parallel share nothing.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
from PIL import Image

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from deploy.local.supervisor import Supervisor
from tests import again
from tests.mill import make_servers

PHOTOS = Path(__file__).parent.parent / "deploy" / "photos"

# The tests bring their own servers: what the developer has set must not leak in. `IMAGEMILL_NATIVE_BF16=off make test`
# runs them as on a machine without bf16.
for _name in [name for name in os.environ if name.startswith("IMAGEMILL_") and name != "IMAGEMILL_NATIVE_BF16"]:
    del os.environ[_name]

# The same examples on every machine, each with all the time that a busy one takes: the suite finds what a change broke,
# and `pytest --hypothesis-profile=default` looks for examples that nobody has met.
hypothesis.settings.register_profile("imagemill", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("imagemill")

_numbers = itertools.count(1)
_failed: set[str] = set()
"""Tests and files of this run."""

_DRILLS = ("browser", "acceptance", "faults", "drills", "packaging")
"""The folders of `make drill`."""
_ORDER = ("contract", "producer", "worker", "deploy", "docs", "gpu", "fundamentals", "attacks", *_DRILLS)
"""Unit tests come first, so that a plain mistake shows within seconds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run tests/drills at the length of the promises")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the drills, and put the tests in the order of `_ORDER`; single files come before all folders."""
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return _ORDER.index(folder) if folder in _ORDER else -1

    for item in items:
        if item.path.relative_to(tests).parts[0] in _DRILLS:
            item.add_marker(pytest.mark.drill)
    items.sort(key=place)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Note what failed if the run came to its end, for `tests.again`."""
    cache: pytest.Cache | None = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        whole = ended and not session.shouldfail and not session.shouldstop
        cache.set(again.FAILED, sorted(_failed) if whole else None)


@pytest.fixture(scope="session")
def photos() -> dict[str, Path]:
    """The photos that the project ships, by name without suffix."""
    return {path.stem: path for path in sorted(PHOTOS.glob("*.jpg"))}


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> Path:
    """Class folders to train on: a hundred crops, 32 × 32, of each of four photos."""
    made = tmp_path_factory.mktemp("crops")
    rng = random.Random(0)
    for name in ("espresso", "giant-panda", "goldfish", "koala"):
        (made / name).mkdir()
        with Image.open(photos[name]) as photo:
            small = photo.convert("RGB").resize((80, 80))
        for n in range(100):
            left, top = rng.randint(0, 48), rng.randint(0, 48)
            small.crop((left, top, left + 32, top + 32)).save(made / name / f"{n:03d}.png")
    return made


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Addresses of the session's Redis and S3 server."""
    data = tmp_path_factory.mktemp("servers")
    services, found = make_servers(data)
    with Supervisor(services, data / "logs") as supervisor:
        supervisor.start()
        yield found


@pytest.fixture
def settings(servers: Settings) -> Settings:
    """The same servers, with a namespace and a bucket that nobody else uses."""
    number = next(_numbers)
    own = servers.model_copy(update={"namespace": f"test-{number}", "bucket": f"test-{number:04d}"})
    with closing(ObjectStore(own)) as store:
        store.ensure_bucket()
    return own


@pytest.fixture
def store(settings: Settings) -> Iterator[ObjectStore]:
    with closing(ObjectStore(settings)) as made:
        yield made


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with closing(Ledger(settings)) as made:
        yield made


@pytest.fixture
def backend(settings: Settings, store: ObjectStore, ledger: Ledger) -> Iterator[Backend]:
    with closing(make_app(settings)) as app:
        yield Backend(store, ledger, Queues(app))
