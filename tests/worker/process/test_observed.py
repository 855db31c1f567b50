"""What the probes say of a process in each of its states."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from contract.settings import Settings
from worker.execution.health import Health
from worker.process.observed import Observed


class Subject:
    """A process of stand-ins, whose clock is `now`."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.backend: Any = SimpleNamespace(
            store=SimpleNamespace(answered_at=None), ledger=SimpleNamespace(answered_at=None)
        )
        self.resources = SimpleNamespace(
            backend=self.backend,
            settings=Settings(data=tmp_path, stall_seconds=300),
            leaving=threading.Event(),
            health=Health(lambda: None),
            models_made=lambda: SimpleNamespace(runtimes=lambda: {"cnn@1": None}),
            renewer_made=lambda: None,
            loading=lambda: "",
        )
        self.test = SimpleNamespace(passed=True)
        self.leaves = SimpleNamespace(stalled=lambda: None)
        self.observed = Observed(cast("Any", self.resources), cast("Any", self.test), cast("Any", self.leaves))
        self.end = threading.Event()
        self.beats = threading.Thread(target=self.end.wait, daemon=True)
        self.beats.start()
        self.observed.begin(["classify"], self.beats)
        self.answer()

    def answer(self) -> None:
        """Have both servers answer now, and the process make its rounds."""
        self.backend.store.answered_at = self.backend.ledger.answered_at = self.now
        self.observed.beat()
        self.observed.turned()

    def live(self) -> tuple[int, str]:
        answer = self.observed._live.page()
        return answer.status, answer.body.decode()

    def ready(self) -> tuple[int, str]:
        answer = self.observed._ready.page()
        return answer.status, answer.body.decode()


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    made = Subject(tmp_path, monkeypatch)
    yield made
    made.end.set()


def test_a_process_that_works_lives_and_is_ready(subject: Subject) -> None:
    assert subject.live() == subject.ready() == (200, "ok\n")


def test_servers_that_are_away_make_it_unready_and_leave_it_alive(subject: Subject) -> None:
    # Given a process whose servers have not answered for ten minutes, while its heartbeat goes on,
    for _ in range(60):
        subject.now += 10
        subject.observed.beat()

    # I expect it alive, although the consumer waits for Redis, and not ready.
    assert subject.live() == (200, "ok\n")
    assert subject.ready() == (503, "redis: no answer for 600 s\nstore: no answer for 600 s\n")


def test_a_consumer_that_hangs_while_redis_answers_is_dead(subject: Subject) -> None:
    for _ in range(7):
        subject.now += 10
        subject.backend.ledger.answered_at = subject.now
        subject.observed.beat()
    assert subject.live() == (503, "consumer: Redis answers, and it has not asked for 70 s\n")


def test_a_consumer_has_time_to_come_back_after_an_outage(subject: Subject) -> None:
    # Given a Redis that was away for ten minutes,
    for _ in range(60):
        subject.now += 10
        subject.observed.beat()

    # if it answers again, I expect the process alive before its consumer has noticed.
    subject.backend.ledger.answered_at = subject.now
    subject.observed.beat()
    subject.now += 30
    assert subject.live() == (200, "ok\n")


def test_a_shard_that_stalls_is_seen(subject: Subject) -> None:
    subject.leaves.stalled = lambda: (cast("Any", None), 301.0)
    assert subject.live() == (503, "shards: one has made no progress for 301 s\n")


def test_a_heartbeat_that_hangs_or_ends_is_seen(subject: Subject) -> None:
    subject.now += 301
    assert subject.live()[0] == 503 and "heartbeat: no round for 301 s" in subject.live()[1]
    subject.end.set()
    subject.beats.join()
    assert "heartbeat: its thread has ended" in subject.live()[1]


def test_a_heartbeat_that_waits_for_redis_lives(subject: Subject) -> None:
    # Given a heartbeat that asks a Redis which accepts and says nothing, for longer than a shard may stand still,
    with subject.observed.asking():
        subject.now += 400
        # I expect the process alive,
        assert subject.live() == (200, "ok\n")

    # also once Redis answers, before the consumer has noticed,
    subject.backend.ledger.answered_at = subject.now
    subject.observed.beat()
    subject.now += 30
    assert subject.live() == (200, "ok\n")

    # and the time that it has for other things to begin after that.
    subject.now += 269
    subject.observed.turned()
    assert subject.live() == (200, "ok\n")
    subject.now += 2
    assert subject.live()[0] == 503


def test_a_process_that_leaves_lives_and_takes_nothing(subject: Subject) -> None:
    # Given a process that drains, whose consumer has stopped,
    subject.resources.leaving.set()
    for _ in range(12):
        subject.now += 10
        subject.backend.ledger.answered_at = subject.backend.store.answered_at = subject.now
        subject.observed.beat()
    assert subject.live() == (200, "ok\n")
    assert subject.ready() == (503, "leaving: it takes nothing new\n")


def test_it_is_not_ready_before_it_was_tested_and_has_a_model(subject: Subject) -> None:
    subject.test.passed = False
    assert subject.ready() == (503, "process: it is testing itself\n")
    subject.resources.health.unfit = "the device is broken"
    assert subject.ready() == (503, "process: the device is broken\n")
    subject.test.passed = True
    subject.resources.models_made = lambda: None
    assert subject.ready() == (503, "process: no model is loaded\n")


def test_it_is_not_ready_while_a_served_model_is_being_loaded(subject: Subject) -> None:
    subject.resources.loading = lambda: "birds@1"
    assert subject.ready() == (503, "serving: birds@1 is being loaded\n")
    assert subject.live() == (200, "ok\n")
