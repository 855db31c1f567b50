"""Whoever follows jobs while Redis is away asks the bucket, and no more often than it can answer."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from contract.errors import RedisUnavailable
from contract.jobs import lifecycle
from contract.jobs.lifecycle import Backend
from contract.jobs.status import Status
from producer.jobs import following
from producer.web.following import Follower

RUNS = Status(id="a-job", kind="classify", state="running")
ENDED = RUNS.model_copy(update={"state": "succeeded"})


class Pauses(threading.Event):
    """An event that nobody sets, and for how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return False


def test_a_bucket_is_left_in_peace_for_as_long_as_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a Redis that is away, and a bucket that takes first no time and then 7 s to say how far a job is,
    now, states = [0.0], iter([(0.0, RUNS), (7.0, RUNS), (0.0, ENDED)])

    def away(*_: object) -> Any:
        raise RedisUnavailable("Redis at 10.0.0.1:6379/0 cannot be reached.")

    def in_bucket(*_: object) -> Status:
        seconds, status = next(states)
        now[0] += seconds
        return status

    monkeypatch.setattr(lifecycle, "status", away)
    monkeypatch.setattr(following, "status_from_bucket", in_bucket)
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pauses = Pauses()
    backend = cast("Backend", SimpleNamespace(store=None))
    found = list(following.follow(backend, "a-job", patience=60.0, stop=pauses))
    assert found == [RUNS, RUNS, ENDED]
    assert pauses.seconds == [0.5, 7.0]


def test_a_server_leaves_it_in_peace_too(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, pauses = iter([RUNS, ENDED]), list[float]()
    slow = 0.2

    def look(_: str) -> Status:
        threading.Event().wait(slow)
        return next(looks)

    async def end() -> Status:
        pause = asyncio.sleep

        async def noted(seconds: float) -> None:
            pauses.append(seconds)
            await pause(0)

        monkeypatch.setattr(asyncio, "sleep", noted)
        return await Follower(look, seconds=0.0).end(RUNS, 60)

    assert asyncio.run(end()) == ENDED
    assert pauses[0] >= slow
