"""Work whose engine sleeps: what it costs Redis and the store is real, what it costs a processor is not.

Imported as a Celery program (`celery -A tests.fleet.sleeper`) it is a whole worker that runs this work.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from contract.data.items import parse_s3, read_manifest
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify
from contract.jobs.status import Output, ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import shard_stem
from worker.execution.job_runner import ShardWork
from worker.execution.leases import Lease
from worker.execution.resources import Resources

SECONDS = "FLEET_SHARD_SECONDS"
"""Names the variable with the seconds that a shard takes."""
HOLD = "FLEET_HOLD"
"""Names the variable with a file: as long as it is there, second copies of shards do not end."""
_STEP = 0.5


@dataclass(frozen=True)
class SleepingWork(ShardWork[Classify]):
    """Reads the manifest of a shard, sleeps, and writes a line for each item."""

    backend: Backend
    seconds: float

    def make(self, spec: Classify, lease: Lease, retry: int) -> ShardCommit:
        """Sleep for the time that a shard takes, with progress and checks on the way."""
        items = read_manifest(self.backend.store.get(JobKeys(lease.job).manifest(lease.shard)))
        began, ends = time.monotonic(), time.monotonic() + self.seconds
        while (now := time.monotonic()) < ends or (lease.copy and self._held()):
            lease.check()
            lease.progress(int(len(items) * min(1.0, (now - began) / self.seconds)), 0)
            time.sleep(min(_STEP, ends - now) if now < ends else _STEP)
        lease.check()
        data = "".join(f"{item.key}\n" for item in items).encode()
        output = f"{spec.output}{shard_stem(lease.shard, retry)}.txt"
        bucket, key = parse_s3(output)
        self.backend.store.put_if_absent(key, data, bucket=bucket)
        digest = hashlib.sha256(data).hexdigest()
        return ShardCommit(
            shard=lease.shard,
            items=len(items),
            ok=len(items),
            errors=0,
            labels={"asleep": len(items)},
            output=output,
            sha256=digest,
            outputs=(Output(address=output, size=len(data), sha256=digest),),
        )

    def _held(self) -> bool:
        return HOLD in os.environ and Path(os.environ[HOLD]).exists()

    def give_up(self, spec: Classify, lease: Lease, retry: int, kills: int) -> ShardCommit:
        raise AssertionError("nothing here kills a process but the test, which kills many at once")


def make_work(resources: Resources) -> SleepingWork:
    """Return work that takes as long as the environment says."""
    return SleepingWork(resources.backend, float(os.environ[SECONDS]))


if SECONDS in os.environ:
    from worker.app import app
    from worker.classify import shard
    from worker.process import process

    shard.make_work = make_work  # type: ignore[assignment]
    process.warm_up = lambda *_: None  # type: ignore[attr-defined]

    __all__ = ["app"]
