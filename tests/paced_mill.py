"""A stack whose workers go as slowly as a test says, so that no job is over before it can be disturbed.

How fast the machine is, or how long the test stands still between two steps, then changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contract.jobs.status import Status
from tests.mill import Mill, own_cache


class PacedMill(Mill):
    """`app` imports `tests.paced`. The workers are slow from `slow` until `fast` or `finished`."""

    def __init__(self, data: Path, workers: int, app: str = "tests.paced", **settings: Any) -> None:
        super().__init__(data, workers, app, cache_dir=own_cache(data / "cache"), **settings)

    def slow(self, seconds: float) -> None:
        """Have each image, or each group of those that are made or learnt from, take so much longer."""
        path = self.settings.cache_dir / "slow"
        told = path.with_suffix(".new")
        told.write_text(str(seconds))
        told.replace(path)

    def fast(self) -> None:
        """Have all of it take as long as it takes."""
        (self.settings.cache_dir / "slow").unlink(missing_ok=True)

    def finished(self, job: str, timeout: float = 120) -> Status:
        """Go on at full speed, and wait for the end of a job."""
        self.fast()
        return super().finished(job, timeout)
