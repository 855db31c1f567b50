"""A watch that has seen very many objects: its set is loaded in seconds, and takes 16 bytes an object."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.settings import Settings
from contract.watches.seen import SeenSet
from tests.drills.seen_set import PREFIX
from tests.mill import variables

ROOT = Path(__file__).parent.parent.parent


def told(settings: Settings, *words: str) -> dict[str, Any]:
    """What a controller says of itself that fills the set, or loads it."""
    command = [sys.executable, "-m", "tests.drills.seen_set", *words]
    environment = {**variables(settings), "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(1800)
def test_a_large_seen_set_is_small_in_memory(
    settings: Settings, store: ObjectStore, long: bool, figures: Callable[..., None]
) -> None:
    for keys in (1_000_000, 10_000_000) if long else (200_000,):
        # Given a watch that has seen so many objects, in segments that were compacted as they closed,
        filled = told(settings, "--keys", str(keys), "--fill")
        figures(keys=keys, **filled)
        # if a controller starts,
        loaded = told(settings, "--keys", str(keys))
        figures(keys=keys, **loaded)
        # I expect few runs, no numpy, a memory of 16 bytes an object and a little, the compaction included,
        assert filled["runs"] <= 8 and not loaded["numpy"]
        assert loaded["peak_mb"] - loaded["before_mb"] < 64 + keys * 16 / 2**20
        assert filled["peak_mb"] - filled["before_mb"] < 60 + 3 * keys * 16 / 2**20
        # and at full length what was promised of a million.
        assert keys != 1_000_000 or (loaded["peak_mb"] <= 250 and loaded["load_seconds"] <= 5)
        SeenSet(store, PREFIX).forget()
