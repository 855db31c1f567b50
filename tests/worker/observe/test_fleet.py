"""The controller's gauges agree with the fleet that it saw, and age when it sees nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contract import instruments
from contract.fleet.rates import Rates
from contract.fleet.snapshot import Fleet, JobState, QueueState, WorkerState
from contract.jobs.status import Shards
from contract.telemetry import meters
from contract.telemetry.prometheus import Metrics
from contract.watches.state import WatchState
from worker.observe import fleet as module
from worker.observe.fleet import FleetWatch

QUEUE = QueueState(
    queue="classify",
    backlog_images=900,
    backlog_seconds=90.0,
    runnable_shards=8,
    running_shards=1,
    slots=3,
    workers=1,
    oldest_waiting_seconds=12.5,
    messages=6,
)
WORKER = WorkerState(
    name="worker-1@x",
    host="x",
    pool="cpu",
    queues=("classify",),
    slots=3,
    busy=1,
    device="cpu",
    precisions=("fp32",),
    models=(),
    rate=10.0,
    since=0.0,
    draining=False,
    unfit="",
)
JOB = JobState(
    id="classify-1",
    owner="ada",
    kind="classify",
    queue="classify",
    priority="normal",
    state="running",
    model="cnn@1",
    items=1000,
    done=100,
    errors=0,
    shards=Shards(total=10, done=1, running=1, queued=8),
    max_slots=0,
    images_per_second=10.0,
    waiting_seconds=12.5,
    backlog_seconds=90.0,
)
FLEET = Fleet(at=1000.0, workers=(WORKER,), queues=(QUEUE,), jobs=(JOB,), rates=Rates())


class Ledger:
    """What a controller asks of the ledger."""

    def __init__(self) -> None:
        self.fleet, self.ticked = FLEET, 995.0
        self.watches: dict[str, WatchState] = {}

    def info(self) -> dict[str, Any]:
        return {"used_memory": 100, "maxmemory": 0, "total_system_memory": 1000, "connected_clients": 7}

    def last_round(self) -> float:
        return self.ticked


class Watched:
    """A watch over a ledger, its clock, and its gauges by name and labels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.ledger = 0.0, Ledger()
        monkeypatch.setattr(module, "read_fleet", lambda ledger: ledger.fleet)
        monkeypatch.setattr(module, "read_states", lambda ledger: ledger.watches)
        self.watch = FleetWatch(self.ledger, clock=lambda: self.now)  # type: ignore[arg-type]
        self.metrics = Metrics(["controller"])
        monkeypatch.setattr(meters, "_recorder", self.metrics)

    def value(self, gauge: meters.Gauge, *labels: str) -> float:
        self.watch.refresh()
        found = self.metrics._find(gauge, labels)
        return float(found._value.get())


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_gauges_agree_with_the_fleet(watched: Watched) -> None:
    watched.watch.look()
    for gauge, value in (
        (instruments.BACKLOG_IMAGES, 900),
        (instruments.BACKLOG_SECONDS, 90),
        (instruments.RUNNABLE_SHARDS, 8),
        (instruments.RUNNING_SHARDS, 1),
        (instruments.SLOTS, 3),
        (instruments.OLDEST_WAITING_SECONDS, 12.5),
        (instruments.QUEUE_MESSAGES, 6),
    ):
        assert watched.value(gauge, "classify") == value, gauge.name
    assert watched.value(instruments.WORKERS, "cpu", "serving") == 1
    assert watched.value(instruments.JOBS, "classify", "running") == 1
    assert [watched.value(instruments.SHARDS, "classify", s) for s in ("queued", "running", "done")] == [8, 1, 1]
    assert watched.value(instruments.REDIS_MEMORY_LIMIT_BYTES) == 1000
    assert watched.value(instruments.REDIS_CLIENTS) == 7


def test_what_is_gone_is_zero(watched: Watched) -> None:
    # Given a job and a worker that were seen,
    watched.watch.look()

    # if the worker drains and the job has ended, I expect them where they are now, and 0 where they were.
    watched.ledger.fleet = replace(FLEET, workers=(replace(WORKER, draining=True),), jobs=())
    watched.watch.look()
    assert watched.value(instruments.WORKERS, "cpu", "serving") == 0
    assert watched.value(instruments.WORKERS, "cpu", "draining") == 1
    assert watched.value(instruments.JOBS, "classify", "running") == 0
    assert watched.value(instruments.SHARDS, "classify", "queued") == 0


def test_a_job_that_stands_still_is_seen(watched: Watched) -> None:
    # Given two jobs, of which one makes progress and the other none for a minute,
    still = replace(JOB, id="classify-2")
    for now in (0.0, 30.0, 60.0):
        watched.now = now
        watched.ledger.fleet = replace(FLEET, jobs=(replace(JOB, done=100 + int(now)), still))
        watched.watch.look()

    # I expect the longest standstill, and none once it goes on.
    assert watched.value(instruments.JOB_IDLE_SECONDS, "classify") == 60
    watched.ledger.fleet = replace(FLEET, jobs=(replace(still, done=101),))
    watched.watch.look()
    assert watched.value(instruments.JOB_IDLE_SECONDS, "classify") == 0


def test_a_segment_of_a_watch_that_waits_for_more_stands_still_for_nobody(watched: Watched) -> None:
    done = replace(JOB, state="planning", done=1000, shards=Shards(total=10, done=10))
    for now, job in ((0.0, done), (3000.0, done), (3001.0, replace(done, shards=Shards(total=11, done=10)))):
        watched.now = now
        watched.ledger.fleet = replace(FLEET, jobs=(job,))
        watched.watch.look()
        assert watched.value(instruments.JOB_IDLE_SECONDS, "classify") == 0


def test_each_watch_shows_how_far_behind_it_is(watched: Watched) -> None:
    # Given a watch with 5 objects that are not planned, the oldest for 40 s, and a segment that lacks 900 rows,
    behind = WatchState(
        name="camera",
        stamp="s",
        controller="c",
        at=999.0,
        every=5.0,
        swept_at=990.0,
        pending=5,
        oldest=960.0,
        jobs=(JOB.id, "classify-gone"),
        table_waiting=1,
        archive_waiting=2,
        archived=300,
    )
    watched.ledger.watches = {"camera": behind}
    watched.watch.look()
    assert watched.value(instruments.WATCH_LAG_SECONDS, "camera") == 40
    assert watched.value(instruments.WATCH_UNPLANNED_IMAGES, "camera") == 5
    assert watched.value(instruments.WATCH_UNCOMMITTED_IMAGES, "camera") == 900
    assert watched.value(instruments.WATCH_TABLE_WAITING_SEGMENTS, "camera") == 1
    assert watched.value(instruments.WATCH_ARCHIVE_WAITING_SEGMENTS, "camera") == 2
    assert watched.value(instruments.WATCH_ARCHIVED_IMAGES, "camera") == 300

    # if it is removed, I expect no alert to stay.
    watched.ledger.watches = {}
    watched.watch.look()
    assert watched.value(instruments.WATCH_LAG_SECONDS, "camera") == 0


def test_figures_that_are_old_say_so(watched: Watched) -> None:
    # Given a look at a fleet whose clock ticked 5 s before,
    watched.watch.look()
    assert watched.value(instruments.RECONCILE_AGE_SECONDS) == 5

    # if a minute passes without another, I expect both ages to grow; a tick brings the second one back.
    watched.now = 60.0
    assert watched.value(instruments.FLEET_AGE_SECONDS) == 60
    assert watched.value(instruments.RECONCILE_AGE_SECONDS) == 65
    watched.ledger.fleet, watched.ledger.ticked = replace(FLEET, at=1060.0), 1059.0
    watched.watch.look()
    assert watched.value(instruments.RECONCILE_AGE_SECONDS) == 1
    assert watched.value(instruments.FLEET_AGE_SECONDS) == 0


def test_others_see_the_same_fleet(watched: Watched) -> None:
    seen: list[Fleet] = []
    watched.watch.also(seen.append)
    watched.watch.look()
    assert seen == [FLEET] and watched.watch.fleet == FLEET
