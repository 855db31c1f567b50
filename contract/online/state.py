"""How served models stand: ready workers, what waits, measured rate and latency, as the workers last said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from contract.keys.online import OnlineKeys
from contract.online.connection import SILENT_SECONDS, connect, mapped, need_address
from contract.online.served import Served
from contract.records import Record
from contract.settings import Settings


class WorkerSays(BaseModel):
    """What one process says of a model that it serves, twice a second; a newer version may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at_ms: int
    """By Redis' clock."""
    rate: float = Field(ge=0)
    """Images per second that it can do, measured while it was busy; 0 if it takes none."""
    worker: str = ""
    images_per_second: float = 0.0
    """Images answered per second, lately."""
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    """From admission to the reply, of the last requests."""

    def field(self) -> str:
        """Return it as a field of the hash, which `ask.lua` reads up to the rate."""
        about = json.dumps(self.model_dump(exclude={"at_ms", "rate"}), separators=(",", ":"))
        return f"{self.at_ms} {self.rate:.3f} {about}"

    @classmethod
    def parse(cls, text: str) -> WorkerSays | None:
        """Return what a field says, or None if nobody of ours wrote it."""
        try:
            at, rate, about = text.split(" ", 2)
            return cls(at_ms=int(at), rate=float(rate), **json.loads(about))
        except (ValueError, TypeError, RecursionError):
            return None


class ServedState(Record):
    """A served model and how it stands, as `imagemill served --json` prints it."""

    model: str = Field(description="The model, as `name@version`.")
    task: str = Field(description="What it does: `classify`, `classify-sequence` or `generate`.")
    precision: str = Field(description="The precision that was asked for.")
    ready: int = Field(0, description="Workers that have it loaded and take requests.")
    waiting: int = Field(0, description="Images of requests that have no reply yet.")
    capacity: float = Field(0.0, description="Images per second that the ready workers can do, as measured.")
    images_per_second: float = Field(0.0, description="Images answered per second, lately.")
    p50_ms: float | None = Field(None, description="Median from admission to reply, of the last requests.")
    p99_ms: float | None = Field(None, description="The 99th percentile, of the slowest worker.")
    workers: tuple[str, ...] = Field((), description="The ready workers.")
    created_at: str = Field(description="Since when it is served.")
    owner: str = Field("", description="Who may end it; empty: anybody.")


def read_states(settings: Settings, served: Sequence[Served]) -> list[ServedState]:
    """Return how these models stand; raises RedisUnavailable, and InvalidSettings without a Redis for them."""
    address = need_address(settings)
    names = OnlineKeys(settings.namespace)
    client = connect(address, connections=1)
    try:
        with mapped(address):
            pipe = client.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(names.load)
            for one in served:
                pipe.hgetall(names.workers(one.ref))
            # A key that somebody wrote over is as if it were not there: it says nothing of the models.
            clock, *hashes = pipe.execute(raise_on_error=False)
            if isinstance(clock, Exception):
                raise clock
    finally:
        client.close()
    now = clock[0] * 1000 + clock[1] // 1000
    load, *said = [found if isinstance(found, dict) else {} for found in hashes]
    return [_state(one, now, load, says) for one, says in zip(served, said, strict=True)]


def announce(settings: Settings) -> None:
    """Tell workers that the served models have changed; without it they see it within seconds."""
    address = need_address(settings)
    client = connect(address, connections=1)
    try:
        with mapped(address):
            client.incr(OnlineKeys(settings.namespace).changed)
    finally:
        client.close()


def alive(said: Mapping[bytes, bytes], now_ms: int) -> dict[str, WorkerSays]:
    """Return what the processes say that are there, by process."""
    found = {
        field.decode(errors="replace"): WorkerSays.parse(value.decode(errors="replace"))
        for field, value in said.items()
    }
    return {
        process: says
        for process, says in found.items()
        if says is not None and now_ms - says.at_ms <= SILENT_SECONDS * 1000
    }


def _count(value: bytes) -> int:
    """Return a number that only scripts of ours write, 0 for what is none."""
    return int(value) if re.fullmatch(rb"\d{1,12}", value) else 0


def _state(served: Served, now: int, load: Mapping[bytes, bytes], said: Mapping[bytes, bytes]) -> ServedState:
    ready = [says for says in alive(said, now).values() if says.rate > 0]
    used = [says for says in ready if says.p50_ms]
    return ServedState(
        model=served.ref,
        task=served.task,
        precision=served.precision,
        ready=len(ready),
        waiting=_count(load.get(f"images:{served.ref}".encode(), b"0")),
        capacity=round(sum(says.rate for says in ready), 1),
        images_per_second=round(sum(says.images_per_second for says in ready), 1),
        p50_ms=sorted(says.p50_ms for says in used)[len(used) // 2] if used else None,
        p99_ms=max(says.p99_ms for says in used) if used else None,
        workers=tuple(sorted(says.worker for says in ready)),
        created_at=served.created_at,
        owner=served.owner,
    )
