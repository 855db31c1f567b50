"""What is killed, stopped or wiped while a bucket fills: each object is one row in the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.watches.state import read_states
from tests.mill import Mill
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
OBJECTS = 240


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """Two controllers, a clock and a worker. Segments are short, and full listings come often."""
    with Mill(
        tmp_path_factory.mktemp("mill"),
        workers=1,
        controllers=2,
        watch_segment_images=100,
        watch_sweep_seconds=2.0,
    ).running() as made:
        yield made


@pytest.fixture
def camera(mill: Mill) -> ObjectStore:
    store = ObjectStore(mill.settings.model_copy(update={"bucket": "camera"}))
    store.ensure_bucket()
    return store


class Shoot:
    """A camera that takes photos in an order that is not that of their names, and sometimes one again."""

    def __init__(self, store: ObjectStore, prefix: str, photo: bytes) -> None:
        self._store, self._prefix, self._photo = store, prefix, photo
        self.taken = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for n in range(OBJECTS):
            name = n * 7919 % OBJECTS
            self._store.put(f"{self._prefix}{name:04d}.jpg", self._photo)
            self.taken += 1
            if n % 10 == 0:  # the same bytes: the same etag, and so the same object
                self._store.put(f"{self._prefix}{name:04d}.jpg", self._photo)

    @contextmanager
    def under_way(self, at_least: int) -> Iterator[None]:
        """Shoot during the body, which begins when some photos are taken; end with all taken."""
        self._thread.start()
        wait_until(lambda: self.taken >= at_least, 60, "the first photos")
        yield
        self._thread.join()


def keeper(mill: Mill) -> str:
    """The controller that keeps the watch."""
    state = wait_until(lambda: read_states(mill.client.backend.ledger).get("camera"), 60, "a controller")
    return state.controller.partition("@")[0]


def check(mill: Mill, prefix: str) -> None:
    """Each object has one row, and the counters of the segments agree with the rows."""

    def rows() -> Counter[str]:
        return Counter(row["key"] for row in mill.client.watched_rows("camera"))

    wait_until(lambda: len(rows()) >= OBJECTS, 180, "a row for each object")
    found = rows()
    assert found == {f"{prefix}{n:04d}.jpg": 1 for n in range(OBJECTS)}
    wait_until(lambda: mill.client.watch("camera").planned == OBJECTS, 60, "the controller to tell")
    mill.client.remove_watch("camera")
    jobs = [status for status in mill.client.jobs() if status.id.startswith("camera-")]
    for job in jobs:
        status = mill.finished(job.id)
        assert (status.state, status.errors, status.done) == ("succeeded", 0, status.total)
    wait_until(lambda: not list(mill.client.backend.store.list("watches/")), 60, "what it had seen to be gone")


@pytest.fixture
def shoot(camera: ObjectStore, photos: dict[str, Path], request: pytest.FixtureRequest) -> Shoot:
    return Shoot(camera, f"{request.node.name}/", photos["koala"].read_bytes())


@pytest.fixture
def prefix(mill: Mill, shoot: Shoot, request: pytest.FixtureRequest) -> str:
    """The prefix that the watch follows."""
    made = f"{request.node.name}/"
    mill.client.add_watch("camera", f"s3://camera/{made}", model=MODEL, every="200ms")
    return made


def test_the_controller_that_keeps_it_is_killed(mill: Mill, shoot: Shoot, prefix: str) -> None:
    name = keeper(mill)
    with shoot.under_way(40):
        mill.kill(name)
    check(mill, prefix)


def test_the_controller_that_keeps_it_stands_still_and_goes_on(mill: Mill, shoot: Shoot, prefix: str) -> None:
    name = keeper(mill)
    with shoot.under_way(40):
        mill.pause(name)
        wait_until(lambda: keeper(mill) != name, 60, "the other controller to take over")
    mill.go_on(name)
    check(mill, prefix)


def test_redis_is_wiped(mill: Mill, shoot: Shoot, prefix: str) -> None:
    keeper(mill)
    with shoot.under_way(40):
        mill.client.backend.ledger.redis.flushall()
    check(mill, prefix)


def test_the_worker_is_killed(mill: Mill, shoot: Shoot, prefix: str) -> None:
    keeper(mill)
    with shoot.under_way(40):
        mill.kill("worker-0")
    check(mill, prefix)
