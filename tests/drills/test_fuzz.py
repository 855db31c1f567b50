"""A million mutated images, and archives and manifests: no crash, no hang, and not a word from the libraries."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_HANG_SECONDS = 60.0
"""A case takes under a millisecond; this long is a hang on any machine."""
COUNTS = {"images": (5_000, 1_000_000), "archives": (3_000, 100_000), "manifests": (3_000, 100_000)}
"""Cases of each kind, in the short and in the long form."""


@dataclass
class Outcome:
    """What came of all cases of a kind."""

    found: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    said: bytes = b""


def fuzz(kind: str, count: int, folder: Path) -> Outcome:
    """Run the cases of a kind; one that ends its process or hangs is noted, and the next process goes on behind it."""
    outcome, state = Outcome(), folder / "state"
    first = 0
    while first < count and len(outcome.crashes) + len(outcome.hangs) < 10:
        state.write_bytes(bytes(8))
        step = min(50_000, count - first)
        out, err = folder / "out", folder / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            command = [sys.executable, "-m", "tests.drills.fuzz", kind, str(first), str(step), str(state)]
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=stdout, stderr=stderr, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            try:
                hung = not _ends(process, state)
            finally:
                process.kill()
                process.wait()
        (last,) = struct.unpack("<Q", state.read_bytes())
        said = err.read_bytes()
        if process.returncode == 0:
            outcome.found.update(json.loads(out.read_text()))
            outcome.said += said
            first += step
        else:
            note = f"{kind} {last}, exit status {process.returncode}: {said[-2000:].decode(errors='replace')}"
            (outcome.hangs if hung else outcome.crashes).append(note)
            first = last + 1
    return outcome


def _ends(process: subprocess.Popen[bytes], state: Path) -> bool:
    """Wait for a process; kill it and return False if it stays with one case for too long."""
    seen, since = b"", time.monotonic()
    while True:
        try:
            process.wait(1.0)
            return True
        except subprocess.TimeoutExpired:
            now = state.read_bytes()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > _HANG_SECONDS:
            process.kill()
            process.wait()
            return False


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("kind", COUNTS)
def test_mutated_files_crash_and_hang_nothing(
    kind: str, tmp_path: Path, long: bool, figures: Callable[..., None]
) -> None:
    count = COUNTS[kind][long]
    begun = time.monotonic()
    outcome = fuzz(kind, count, tmp_path)
    figures(
        cases=count,
        crashes=len(outcome.crashes),
        hangs=len(outcome.hangs),
        bytes_of_chatter=len(outcome.said),
        seconds=f"{time.monotonic() - begun:.0f}",
        outcomes=dict(outcome.found.most_common(8)),
    )
    assert not outcome.crashes, outcome.crashes[0]
    assert not outcome.hangs, outcome.hangs[0]
    assert outcome.said == b"", outcome.said[:2000].decode(errors="replace")
    assert outcome.found.total() == count
