"""CPU seconds are those of the process, and of all that it started, under the name of its part."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.bench.cpu import CpuSeconds, by_role, resident

BURNT = 0.3
_BURN = f"import time\nwhile time.process_time() < {BURNT}: pass\n"
_WORKER = f"""
import subprocess, sys
{_BURN}
subprocess.run([sys.executable, '-c', {_BURN!r}], check=True)
print('burnt', flush=True)
sys.stdin.read()
"""
_SUPERVISOR = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {_WORKER!r}, 'worker.cli', 'run'], stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate()
"""


@pytest.fixture
def supervisor() -> Iterator[int]:
    """A process with a child that looks like a worker; both, and a grandchild that has ended, took CPU time."""
    command = [sys.executable, "-c", _SUPERVISOR]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "burnt\n"
        yield process.pid
        process.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU seconds of others are read from /proc")
def test_a_worker_answers_for_what_it_started(supervisor: int) -> None:
    # Given a worker that burnt 0.3 s itself and 0.3 s in a process that ended, I expect 0.6 s, of the worker alone.
    spent = by_role(supervisor)
    assert set(spent) == {"worker"}
    assert spent["worker"] >= 2 * BURNT - 0.05, "a tick of the clock is 10 ms"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory of others is read from /proc")
def test_a_worker_has_the_memory_of_its_children() -> None:
    # Given a worker whose child has written 64 MB, I expect these to count as the worker's.
    big = "held = b'x' * (64 << 20)\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()\n"
    worker = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {big!r}])\n"
    supervisor = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {worker!r}, 'worker.cli', 'run'])\n"
    with subprocess.Popen(
        [sys.executable, "-c", supervisor], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = resident(process.pid)
        process.communicate()
    assert set(found) == {"worker"}
    assert found["worker"] > 64 << 20


def test_a_step_costs_what_it_spent() -> None:
    # Given a step that starts a process which burns 0.3 s, if I run it twice,
    cpu = CpuSeconds(supervisor=-1)

    def step() -> float:
        subprocess.run([sys.executable, "-c", _BURN], check=True)
        return 1.0

    measured = cpu.of("step", step)
    assert [measured(), measured()] == [1.0, 1.0]

    # I expect each run to be charged for its own process, in the column of commands.
    spent = cpu.medians(last=2)["step"]
    assert BURNT - 0.05 <= spent["client"] < 2 * BURNT + 5, "not the sum of all runs so far"
