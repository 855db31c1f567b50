"""A prefix of very many keys: listed and planned in bounded memory, in order, each once, and labelled meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import read_manifest
from contract.jobs.lifecycle import submit
from contract.settings import Settings
from deploy.local.ports import LOOPBACK
from tests.fleet.sleeper import SECONDS
from tests.listed_store import JOB, KEYS, PREFIX, SEEN, key, spec
from tests.mill import Mill, variables
from tests.slow_store import BUCKET
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def listed_store(keys: int) -> Iterator[str]:
    """An S3 server that lists so many images as fast as it is read."""
    command = [sys.executable, "-m", "tests.listed_store", "--keys", str(keys)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        try:
            yield f"{LOOPBACK}:{json.loads(server.stdout.readline())['port']}"
        finally:
            server.kill()


def planned(settings: Settings, keys: int) -> dict[str, Any]:
    """What a planner says of itself that cut so many keys into shards, beside what listing alone takes."""
    with closing(ObjectStore(settings)) as store:
        began = time.monotonic()
        listed = sum(len(page) for page in store.pages(PREFIX))
        alone = time.monotonic() - began
    assert listed == keys
    command = [sys.executable, "-m", "tests.drills.planner", "--keys", str(keys), "--bucket", settings.bucket]
    environment = {**variables(settings), "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "listed_a_second": round(keys / alone)}


@pytest.mark.timeout(3600)
def test_a_large_prefix_is_planned_as_fast_as_it_is_listed(
    settings: Settings, long: bool, figures: Callable[..., None]
) -> None:
    # Given a prefix of many keys, in a store that answers as fast as it is read,
    keys = 10_000_000 if long else 100_000
    with listed_store(keys) as address:
        own = settings.model_copy(update={"s3_endpoint": address, "bucket": BUCKET})
        told = planned(own, keys)
        with closing(ObjectStore(own)) as store:
            told |= json.loads(store.get(SEEN))
    figures(keys=keys, **told)
    # I expect every key in its order in a shard, once, and little memory here and in Redis, however many there are.
    assert (told["items"], told["ordered"], told["state"]) == (keys, True, "running")
    assert told["peak_mb"] - told["before_mb"] < 64
    assert told["redis_kb"] < 256


@pytest.mark.timeout(3600)
def test_a_prefix_of_the_real_store_is_planned(
    settings: Settings, store: ObjectStore, long: bool, figures: Callable[..., None]
) -> None:
    # Given a prefix in the store that comes with the project,
    keys = 100_000 if long else 3000
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: store.put(key(number), b"x"), range(keys)))
    told = planned(settings, keys)
    manifests = [store.get(entry.key) for entry in store.list(KEYS.plan_prefix) if entry.key.endswith(".jsonl")]
    items = [item.key for manifest in manifests for item in read_manifest(manifest)]
    figures(keys=keys, shards=len(manifests) - 1, **told)
    # I expect the same.
    assert items == [key(number) for number in range(keys)]
    assert told["state"] == "running"


def test_the_first_shard_runs_while_the_rest_is_listed(
    tmp_path: Path, figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker, and a prefix that takes minutes to list,
    monkeypatch.setenv(SECONDS, "60")
    with listed_store(10_000_000) as address:
        mill = Mill(tmp_path, 1, app="tests.fleet.sleeper", s3_endpoint=address, bucket=BUCKET)
        with mill.supervisor, closing(mill.client) as client:
            mill.supervisor.start("redis", "redis-online", *mill.controllers, *mill.clocks, *mill.workers)
            # The controller beats too.
            wait_until(lambda: any(one.name.startswith("worker-") for one in client.workers()), 60, "the worker")
            began = time.monotonic()
            submit(client.backend, spec(BUCKET))
            # if a job is submitted over it, I expect its first shard to run
            wait_until(lambda: client.status(JOB).shards.running, 60, "the first shard")
            seconds, found = time.monotonic() - began, client.status(JOB)
            # while it is planned.
            assert (found.state, found.total) == ("planning", None)
            assert client.cancel(JOB).state == "canceled"
    figures(first_shard_seconds=round(seconds, 2), planned_by_then=found.shards.total)
