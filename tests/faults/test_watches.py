"""What is killed, stopped or wiped while a bucket fills: each object is one row in the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
    return mill.bucket("camera")


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
    assert state is not None
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


def test_each_segment_starts_the_command_once_though_controllers_die(
    mill: Mill, shoot: Shoot, request: pytest.FixtureRequest
) -> None:
    # Given a watch whose segments are evaluated as they end; the schedule itself never comes due here
    client, made = mill.client, f"{request.node.name}/"
    client.add_schedule("check", "evaluate", {"model": MODEL, "source": "watch:camera@newest"}, cron="0 0 29 2 *")
    client.add_watch("camera", f"s3://camera/{made}", model=MODEL, every="200ms", then="check")
    assert client.watch("camera").then == "check"

    # If the controller that keeps it is killed, and Redis is wiped
    with shoot.under_way(40):
        mill.kill(keeper(mill))
    client.backend.ledger.redis.flushall()

    # I expect one evaluation of each segment that has ended before the watch is removed, and of nothing else.
    wait_until(lambda: client.schedule_history("check"), 180, "a segment to end")
    check(mill, made)
    runs = client.schedule_history("check")
    segments = [str(run.after) for run in runs]
    assert len(set(segments)) == len(segments) >= 1
    for run in runs:
        assert run.job is not None and run.tick and not run.manual
        status = mill.finished(run.job)
        assert (status.state, status.source) == ("succeeded", f"job:{run.after}")
        assert status.metrics is not None and status.metrics["top1"] == 1.0  # by its own labels
        assert client.status(str(run.after)).total == status.ok
    evaluations = [status.id for status in client.jobs() if status.kind == "evaluate"]
    assert sorted(evaluations) == sorted(str(run.job) for run in runs)
    client.remove_schedule("check")


def test_the_controller_is_killed_while_images_are_moved(
    mill: Mill, camera: ObjectStore, shoot: Shoot, request: pytest.FixtureRequest
) -> None:
    # Given a watch that moves what it has labelled to another bucket
    client, made = mill.client, f"{request.node.name}/"
    cold = mill.bucket("cold")
    before = {job.id for job in client.jobs()}  # of the watches of other tests
    client.add_watch(
        "camera",
        f"s3://camera/{made}",
        model=MODEL,
        every="200ms",
        overwrites="again",
        archive=f"s3://cold/{made}",
    )
    # if the controller that keeps it is killed as soon as the first images are there
    with shoot.under_way(OBJECTS):
        wait_until(lambda: any(cold.list(made)), 180, "the first images in the archive")
        mill.kill(keeper(mill))

    # I expect one row for each, and the images of each segment that has ended to be moved,
    def rows() -> list[dict[str, Any]]:
        return list(client.watched_rows("camera"))

    wait_until(lambda: len(rows()) >= OBJECTS, 180, "a row for each object")
    assert Counter(row["key"] for row in rows()) == {f"{made}{n:04d}.jpg": 1 for n in range(OBJECTS)}
    ended = [one for one in client.jobs() if one.id not in before and one.state == "succeeded"]
    wanted = {str(row["archive"]) for one in ended for row in client.results(one.id)}
    assert len(wanted) >= 100

    def there() -> set[str]:
        return {f"s3://cold/{entry.key}" for entry in cold.list(made)}

    wait_until(lambda: wanted <= there(), 120, "the images to be moved")
    wait_until(lambda: len(list(camera.list(made))) == OBJECTS - len(there()), 60, "them to be gone here")
    # and whoever reads them later to find each where it is: an evaluation, and a replay over all of them.
    judged = mill.finished(client.evaluate(MODEL, f"job:{ended[0].id}").id)
    assert judged.metrics is not None and judged.metrics["top1"] == 1.0
    replay = mill.finished(client.replay_watch("camera", begin=datetime.now(UTC) - timedelta(hours=1), model=MODEL).id)
    assert (replay.state, replay.ok, replay.errors) == ("succeeded", OBJECTS, 0)
    client.remove_watch("camera")
    wait_until(lambda: not list(client.backend.store.list("watches/")), 60, "what it had seen to be gone")
