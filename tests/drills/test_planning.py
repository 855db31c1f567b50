"""A prefix of very many keys: listed and planned in bounded memory, in order, each once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from deploy.local.ports import LOOPBACK
from tests.listed_store import PREFIX, SEEN
from tests.mill import variables
from tests.slow_store import BUCKET

ROOT = Path(__file__).parent.parent.parent
KEYS_A_SECOND = 50_000


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
    """What a planner says of itself that cut so many keys into shards, and what the store saw."""
    with listed_store(keys) as address:
        own = settings.model_copy(update={"s3_endpoint": address, "bucket": BUCKET})
        with closing(ObjectStore(own)) as store:
            began = time.monotonic()
            listed = sum(len(page) for page in store.pages(PREFIX))
            alone = time.monotonic() - began
            command = [sys.executable, "-m", "tests.drills.planner", "--keys", str(keys)]
            environment = {**variables(own), "PYTHONPATH": str(ROOT), "PATH": ""}
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            seen = json.loads(store.get(SEEN))
    assert listed == keys
    return {**json.loads(done.stdout.splitlines()[-1]), **seen, "listed_a_second": round(keys / alone)}


@pytest.mark.timeout(3600)
def test_a_large_prefix_is_planned_as_fast_as_it_is_listed(
    settings: Settings, long: bool, figures: Callable[..., None]
) -> None:
    # Given a prefix of many keys, in a store that answers as fast as it is read,
    keys = 10_000_000 if long else 100_000
    told = planned(settings, keys)
    figures(keys=keys, **told)
    # I expect every key in its order in a shard, once, and the plan to take little memory however many there are,
    assert (told["items"], told["ordered"], told["state"]) == (keys, True, "running")
    assert told["peak_mb"] - told["before_mb"] < 64
    # and at full length the pace that was promised.
    assert not long or told["keys_a_second"] >= KEYS_A_SECOND
