"""A schedule of every minute, two clocks of which one is killed: none lost, none doubled. The test is the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from contract.jobs.options import ClassifyOptions
from contract.jobs.schedules import Schedules, stamp
from contract.keys.queues import TASK_TICK
from contract.models.registry import Model, Preprocess, Registry, make_file
from producer.jobs.requests import make_request, make_template
from producer.jobs.schedules import new_schedule
from tests.mill import Mill
from tests.waiting import wait_until

BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """Two clocks and a controller; nobody labels, for what counts here is which jobs there are."""
    data = tmp_path_factory.mktemp("mill")
    with Mill(data, workers=0, app="tests.faults.driven", clocks=2, reconcile_seconds=0.5).running() as made:
        yield made


@pytest.fixture(autouse=True)
def model(mill: Mill) -> None:
    """A model and a prefix, for there is no worker that would publish one."""
    store = mill.client.backend.store
    store.put("camera/a.jpg", b"a photo that nobody looks at")
    weights = b"weights"
    Registry(store).publish(
        Model(
            name="flowers",
            version=1,
            family="cnn",
            labels=("rose", "tulip"),
            preprocess=Preprocess(size=8, mean=0.0, std=1.0),
            weights=make_file("weights.safetensors", weights),
        ),
        {"weights.safetensors": weights},
    )


def turn_to(mill: Mill, now: datetime) -> None:
    """Set the clock that the controller sees."""
    mill.client.backend.ledger.redis.set(f"{mill.settings.namespace}:test:time", now.timestamp())


def begin(mill: Mill, name: str) -> None:
    """A schedule of every minute whose ticks begin with that of `BEGIN`."""
    store = mill.client.backend.store
    options = ClassifyOptions(source=f"s3://{mill.settings.bucket}/camera/", model="flowers")
    template = make_template(make_request(options, store, mill.settings))
    made = new_schedule(name, template, cron="* * * * *", timezone="UTC", missed="run", now=BEGIN - MINUTE)
    Schedules(store).add(made)


def jobs(mill: Mill, name: str) -> list[str]:
    return sorted(job.id for job in mill.client.jobs() if job.id.startswith(f"{name}-"))


def more(mill: Mill, name: str, n: int) -> bool:
    return len(jobs(mill, name)) > n


def expected(name: str, count: int) -> list[str]:
    return [f"{name}-{stamp(BEGIN + n * MINUTE)}" for n in range(count)]


def sent(mill: Mill, clock: str) -> int:
    """How many ticks a clock has sent."""
    return mill.log(clock).count(TASK_TICK)


def test_two_clocks_of_which_one_is_killed(mill: Mill) -> None:
    # Given two clocks that tick, and a schedule of every minute,
    turn_to(mill, BEGIN - MINUTE)
    begin(mill, "nightly")
    wait_until(lambda: all(sent(mill, clock) for clock in mill.clocks), 20, "both clocks to tick")

    for n in range(8):
        # if one of them is killed at every other minute, each in its turn,
        if n % 2:
            mill.kill(mill.clocks[n // 2 % 2])
        turn_to(mill, BEGIN + n * MINUTE)
        # I expect the job of each minute, once;
        wait_until(partial(more, mill, "nightly", n), 20, f"the tick of minute {n}")
        assert jobs(mill, "nightly") == expected("nightly", n + 1)

    # and all of them planned, in the history, and none more after further rounds.
    before = sum(sent(mill, clock) for clock in mill.clocks)
    wait_until(lambda: sum(sent(mill, clock) for clock in mill.clocks) > before + 4, 20, "four more rounds")
    assert jobs(mill, "nightly") == expected("nightly", 8)
    wait_until(lambda: all(mill.client.status(job).total == 1 for job in expected("nightly", 8)), 20, "all plans")
    history = mill.client.schedule_history("nightly")
    assert [run.job for run in reversed(history)] == expected("nightly", 8)
    assert {run.missed for run in history} == {0}


def test_the_controller_is_killed_and_redis_wiped(mill: Mill) -> None:
    turn_to(mill, BEGIN - MINUTE)
    begin(mill, "hourly")

    for n in range(4):
        mill.kill("controller")
        mill.client.backend.ledger.redis.flushall()
        turn_to(mill, BEGIN + n * MINUTE)
        wait_until(partial(more, mill, "hourly", n), 40, f"the tick of minute {n}")

    assert jobs(mill, "hourly") == expected("hourly", 4)
    assert jobs(mill, "nightly") == expected("nightly", 8)
