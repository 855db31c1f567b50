"""What the engine finds out about the machine, and tells its C library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from worker.engine.cores import cores, quota
from worker.engine.memory import calm_openmp


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000", 1),
        ("?", None),
    ],
)
def test_a_container_limits_the_cores(tmp_path: Path, text: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert quota(tmp_path / "cpu.max") == expected


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has(tmp_path: Path) -> None:
    assert quota(tmp_path / "none") is None
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_openmp_is_calmed_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    calm_openmp()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    calm_openmp()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_freed_memory_stays_with_the_process() -> None:
    # Given a process that was told to keep its memory (a process of its own: it cannot be untold),
    code = """
import ctypes, resource
from worker.engine.memory import tune_allocator
assert tune_allocator()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def touch():
    block = libc.malloc(50_000_000); ctypes.memset(block, 1, 50_000_000); libc.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    # if it takes the same 50 MB again and again, I expect next to no page faults; it takes 12,000 each else.
    assert int(found.stdout) < 1000
