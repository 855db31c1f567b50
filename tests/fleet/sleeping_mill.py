"""A whole stack whose workers have one slot each and an engine that sleeps, each for as long as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.local.supervisor import Service
from tests.fleet.sleeper import HOLD, SECONDS
from tests.mill import Mill


class SleepingMill(Mill):
    """`seconds` are those that a shard takes each worker."""

    def __init__(self, data: Path, seconds: Sequence[float], **settings: Any) -> None:
        self._hold = data / "hold"
        takes = {f"worker-{n}": str(each) for n, each in enumerate(seconds)}

        def altered(service: Service) -> Service:
            command = ["tests.fleet.sleeper" if word == "worker.app" else word for word in service.command]
            env = {**(service.env or {}), SECONDS: takes[service.name], HOLD: str(self._hold)}
            return replace(service, command=[*command, "--concurrency", "1"], env=env)

        super().__init__(data, len(seconds), altered=altered, **settings)

    def hold_copies(self) -> None:
        """Let no second copy of a shard end before `release_copies`, however long the test stands still."""
        self._hold.touch()

    def release_copies(self) -> None:
        """Let second copies end."""
        self._hold.unlink(missing_ok=True)

    def ready(self) -> bool:
        """Return whether all workers are alive; they load no models."""
        return sum(worker.name.startswith("worker-") for worker in self.client.workers()) == len(self.workers)
