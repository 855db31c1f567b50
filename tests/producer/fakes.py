"""A store and a ledger in memory, just large enough to resolve and to pack against without servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from contract.backend.ledger import Ledger, Step
from contract.backend.listing import Entry
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.errors import ObjectNotFound
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify, Source
from contract.records import ShardSize


@dataclass
class MemoryStore:
    """Objects of one bucket, `mill`."""

    objects: dict[str, bytes] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    listed: int = 0
    """Entries that listings have yielded."""
    bucket: str = "mill"
    endpoint: str = "memory"

    def bucket_exists(self, bucket: str) -> bool:
        return bucket == self.bucket

    def get(self, key: str, *, bucket: str = "", offset: int = 0, length: int | None = None) -> bytes:
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self.objects[key][offset:][:length]

    def size(self, key: str, *, bucket: str = "") -> int:
        return len(self.get(key))

    def put(self, key: str, data: bytes, *, bucket: str = "") -> None:
        self.objects[key] = data
        self.writes.append(key)

    def put_file(self, key: str, path: Path, *, bucket: str = "") -> None:
        self.put(key, path.read_bytes())

    def list(self, prefix: str, *, bucket: str = "", folders: bool = False) -> Iterator[Entry]:
        found: dict[str, int] = {}
        for key in sorted(self.objects):
            if key.startswith(prefix):
                name, slash, _ = key.removeprefix(prefix).partition("/")
                within = folders and bool(slash)
                found[f"{prefix}{name}/" if within else key] = 0 if within else len(self.objects[key])
        for key, size in found.items():
            self.listed += 1
            yield Entry(key, size)


@dataclass
class MemoryLedger:
    """Remembers what it was told; `state` is what it answers."""

    state: str = "planning"
    told: list[tuple[str, int, int]] = field(default_factory=list)
    sent: int = 0
    """Tickets."""

    def send_tickets(self, queue: str, number: int = 1) -> None:
        self.sent += number

    def planned(self, id: str, shard: int, items: int) -> Step:
        self.told.append(("planned", shard, items))
        return Step(self.state, "classify", 1)

    def complete(self, id: str, *, shards: int, items: int, error_limit: int, skipped: int) -> Step:
        self.told.append(("complete", shards, items))
        return Step(self.state)


def as_store(store: MemoryStore) -> ObjectStore:
    return cast("ObjectStore", store)


def backend(store: MemoryStore, ledger: MemoryLedger) -> Backend:
    """Return a backend without queues: what uses it sends tickets only."""
    return Backend(as_store(store), cast("Ledger", ledger), cast("Queues", None))


def spec(shard_size: ShardSize = 2) -> Classify:
    return Classify(
        id="job",
        source=Source(kind="packed", uri="file:///photos", label="photos"),
        model="cnn@1",
        weights_sha256="0" * 64,
        top_k=5,
        shard_size=shard_size,
        max_errors="100%",
        output="s3://mill/jobs/job/out/",
    )
