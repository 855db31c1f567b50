"""The end of a very large job: a store of 20 ms a call, a controller of 512 MB, and ten minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contract.settings import Settings
from deploy.local.ports import LOOPBACK
from tests.mill import variables
from tests.slow_store import BUCKET

ROOT = Path(__file__).parent.parent.parent

Case = tuple[int, int, int]
"""Commits, items a commit, and every how many shards one was run again."""

SHORT: dict[str, Case] = {"1.6 million images": (400, 4096, 0), "a job that was retried": (300, 256, 5)}
LONG: dict[str, Case] = {
    "10^7 images in large shards": (2_442, 4096, 0),
    "10^7 images in small shards": (39_063, 256, 0),
    "10^7 images, every tenth shard retried": (2_442, 4096, 10),
    "10^8 images": (24_415, 4096, 0),
}


@contextmanager
def slow_store(commits: int, items: int, retried: int) -> Iterator[str]:
    """An S3 server that takes 20 ms a call, and holds the commits of a job."""
    sizes = ["--commits", str(commits), "--items", str(items), "--retried", str(retried)]
    command = [sys.executable, "-m", "tests.slow_store", *sizes]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        try:
            yield f"{LOOPBACK}:{json.loads(server.stdout.readline())['port']}"
        finally:
            server.kill()


def finalized(settings: Settings, commits: int, items: int, retried: int) -> dict[str, Any]:
    """What a controller says that rebuilt and finalized such a job."""
    with slow_store(commits, items, retried) as address:
        own = settings.model_copy(update={"s3_endpoint": address, "bucket": BUCKET})
        command = [sys.executable, "-m", "tests.drills.controller", "--commits", str(commits), "--items", str(items)]
        environment = {**variables(own), "PYTHONPATH": str(ROOT), "PATH": ""}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_large_job_ends_in_bounded_memory_and_time(
    settings: Settings, long: bool, figures: Callable[..., None]
) -> None:
    for number, (name, case) in enumerate((LONG if long else SHORT).items()):
        # Given a job whose shards are all committed, in a store of 20 ms a call, and a Redis that has forgotten it,
        commits, items, _ = case
        told = finalized(settings.model_copy(update={"namespace": f"{settings.namespace}-{number}"}), *case)
        figures(case=name, commits=commits, **told)

        # I expect one controller of 512 MB to rebuild and to finalize it within ten minutes each, and to count all.
        assert (told["state"], told["ok"], told["total"]) == ("succeeded", commits * items, commits * items)
        assert told["labels"] == told["ok"]
        assert told["peak_mb"] <= 512
        # A commit of 600 labels takes about 100 kB once it is parsed: 300 that were kept would show as 30 MB.
        assert told["peak_mb"] - told["before_mb"] < 25
        assert not told["numpy"], "the controller has no numpy"
        assert max(told["rebuild_seconds"], told["finalize_seconds"]) <= 600
