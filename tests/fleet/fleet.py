"""Starts processes of virtual workers, kills some of them, and collects what their workers were given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from contract.settings import Settings
from tests.fleet.sleeper import SECONDS
from tests.mill import variables

ROOT = Path(__file__).parent.parent.parent


class Given(NamedTuple):
    """A shard that a worker was given; times by the monotonic clock, which all processes share."""

    job: str
    shard: int
    free_at: float
    """When the slot became free."""
    at: float


@dataclass
class Fleet:
    """Workers in processes of equal size. Use it in a `with` statement, then `stop` it for what they were given."""

    settings: Settings
    processes: int
    workers: int
    """In each process."""
    seconds: float
    """That a shard takes."""
    slots: int = 1
    given: list[Given] = field(default_factory=list)
    cpu_seconds: float = 0.0
    _running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.processes * self.workers

    def __enter__(self) -> Fleet:
        environment = {**os.environ, **variables(self.settings), "PYTHONPATH": str(ROOT), SECONDS: str(self.seconds)}
        for number in range(self.processes):
            name = f"fleet-{number}"
            command = [sys.executable, "-m", "tests.fleet.virtual", "--name", name]
            command += ["--workers", str(self.workers), "--slots", str(self.slots)]
            pipe: Any = subprocess.PIPE
            self._running[name] = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True
            )
        for process in self._running.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "a process of workers did not start; see its message above"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            _end(process)

    def kill(self) -> str:
        """Kill one process with all of its workers at once; return what their names begin with."""
        name, process = self._running.popitem()
        _end(process)
        return f"{name}-"

    def stop(self) -> None:
        """End the others, and collect what their workers were given."""
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in self._running.values():
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            self.given += [Given(*row) for row in told["granted"]]
            self.cpu_seconds += told["cpu_seconds"]
        self.given.sort(key=lambda one: one.at)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
