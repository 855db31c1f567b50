"""A trace: the jobs that a pool of workers gets and what befalls it, as `imagemill-worker simulate` reads it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from contract.errors import InvalidInput
from contract.fleet.wanted import Policy
from contract.keys.queues import QUEUE_CLASSIFY
from contract.records import Record


class Arrival(Record):
    """A job, or several of a kind, `every` so many seconds from `at` on."""

    at: float = Field(0.0, ge=0)
    images: int = Field(ge=1)
    times: int = Field(1, ge=1, le=10_000)
    every: float = Field(0.0, ge=0)


class Eviction(Record):
    """Workers that vanish with what they run, without notice; the oldest first."""

    at: float = Field(ge=0)
    workers: int = Field(ge=1)


class Trace(Record):
    """What happens to a pool of alike workers."""

    name: str
    jobs: tuple[Arrival, ...] = Field(min_length=1)
    evictions: tuple[Eviction, ...] = ()
    slots: int = Field(2, ge=1, description="Shards that a worker runs at once.")
    images_per_second: float = Field(50.0, gt=0, description="Of one slot.")
    shard_size: int = Field(512, ge=1)
    cold_start_seconds: float = Field(120.0, ge=0, description="From asking for a worker to its first shard.")
    grace_seconds: float = Field(20.0, ge=0, description="Time for a worker that is taken away to end its shards.")
    least: int = Field(0, ge=0)
    most: int = Field(200, ge=1)
    target_seconds: float = Field(300.0, gt=0)
    cool_down_seconds: float = Field(120.0, ge=0)
    window: int = Field(256, ge=1, description="Shards of a job that are in Redis' list or running, for queue length.")

    @property
    def policy(self) -> Policy:
        """The policy that the trace asks for."""
        return Policy(
            queues=(QUEUE_CLASSIFY,),
            least=self.least,
            most=self.most,
            target_seconds=self.target_seconds,
            cold_start_seconds=self.cold_start_seconds,
            cool_down_seconds=self.cool_down_seconds,
        )


def read_trace(path: Path, *, target_seconds: float | None = None) -> Trace:
    """Return the trace in a file; raises InvalidInput, naming file and field."""
    try:
        trace = Trace.model_validate_json(path.read_bytes())
        return Trace.model_validate({**trace.model_dump(), "target_seconds": target_seconds or trace.target_seconds})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path} is no trace: {where or 'the file'}: {first['msg']}.") from None
