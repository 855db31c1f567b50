"""A job for workers whose engine sleeps: many shards of a few items, planned at once."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3, write_manifest
from contract.jobs.commits import iter_commits
from contract.jobs.lifecycle import Backend, submit
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Plan
from contract.keys.jobs import JobKeys

_THREADS = 16


def begin(
    backend: Backend, id: str, shards: int, items: int = 1, owner: str = "", **options: Any
) -> tuple[list[str], float]:
    """Submit a job of so many shards with so many items each, and let all of them run at once.

    Return the keys of its items, and when the shards could run, by the monotonic clock.
    """
    spec = Classify(
        id=id,
        source=Source(kind="prefix", uri="s3://photos/", label="photos"),
        model="m@1",
        weights_sha256="0" * 64,
        output=f"s3://{backend.store.bucket}/jobs/{id}/out/",
        **options,
    )
    names = [[f"{shard:06d}-{n:03d}.jpg" for n in range(items)] for shard in range(shards)]

    def write(shard: int) -> None:
        manifest = write_manifest([Item(name, f"s3://photos/{name}", size=1) for name in names[shard]])
        backend.store.put(JobKeys(id).manifest(shard), manifest)

    # Before it is submitted, so that no planner lists the source, which is not there.
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(write, range(shards)))
    total = shards * items
    backend.store.put(JobKeys(id).plan, Plan(shards=shards, items=total, skipped=0).to_json())
    submit(backend, spec, owner)
    at = time.monotonic()
    step = backend.ledger.complete(id, shards=shards, items=total, error_limit=total, skipped=0)
    backend.follow_up(id, step)
    return [name for of_shard in names for name in of_shard], at


def rows(store: ObjectStore, id: str) -> Counter[str]:
    """Return how often each item has a row, over what all commits of a job name."""

    def read(address: str) -> list[str]:
        bucket, key = parse_s3(address)
        return store.get(key, bucket=bucket).decode().splitlines()

    addresses = [output.address for commit in iter_commits(store, id) for output in commit.outputs]
    with ThreadPoolExecutor(_THREADS) as threads:
        return Counter(name for names in threads.map(read, addresses) for name in names)
