"""The lock of a data folder: one stack holds it, and whoever looks is in nobody's way."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from contract.errors import InvalidInput
from deploy.local import lock
from deploy.local.lock import LOCK_FILE, DataLock, holder


class Clock:
    """A clock that only waiting moves. `looker` gives its share of the lock up after `stands` seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stands = float("inf")
        self.looker: IO[str] | None = None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.looker is not None and self.now >= self.stands:
            self.looker.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Clock]:
    """A process that looks at the lock of a folder, and stands still in the middle of that."""
    found = Clock()
    monkeypatch.setattr(lock, "time", found)
    found.looker = (tmp_path / LOCK_FILE).open("a+")
    fcntl.flock(found.looker, fcntl.LOCK_SH)
    with found.looker:
        yield found


def test_whoever_looks_and_stands_still_is_waited_for(clock: Clock, tmp_path: Path) -> None:
    clock.stands = 20.0
    mine = DataLock(tmp_path)
    mine.acquire()
    assert mine.held and clock.now >= 20
    assert holder(tmp_path) == os.getpid()
    mine.release()
    assert holder(tmp_path) is None


def test_whoever_stands_still_for_ever_is_not_called_a_stack(clock: Clock, tmp_path: Path) -> None:
    mine = DataLock(tmp_path)
    with pytest.raises(InvalidInput, match=f"stands still and keeps it locked; `fuser {tmp_path}/lock` names it"):
        mine.acquire()
    assert not mine.held
    # A second one that looks is not hindered by the first.
    assert holder(tmp_path) is None


def test_a_stack_is_waited_for_no_longer_than_it_takes_to_end(clock: Clock, tmp_path: Path) -> None:
    assert clock.looker is not None
    clock.looker.close()
    first, second = DataLock(tmp_path), DataLock(tmp_path)
    first.acquire()
    with pytest.raises(InvalidInput, match=f"Another stack runs on {tmp_path}; stop it with `imagemill down --data"):
        second.acquire()
    assert clock.now < 1
    first.release()
    second.acquire()
    second.release()
