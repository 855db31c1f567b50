"""A bench that is ended takes its stack with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import processes
from tests.waiting import wait_until

BENCH = [str(Path(sys.executable).with_name("imagemill-worker")), "bench", "--only", "labelling", "--count", "8"]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_bench_that_is_ended_by_a_signal_stops_its_stack(ending: signal.Signals, tmp_path: Path) -> None:
    # Given a bench whose stack has begun to run,
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        BENCH,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell that runs the tests in the background has them, and their children, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as bench:
        wait_until(lambda: list(tmp_path.glob("*/stack/servers.json")), 60, "the stack")

        # if a signal ends it, I expect it to go, and every process that it started with it.
        bench.send_signal(ending)
        assert bench.wait(240) != 0
    assert processes(tmp_path) == {}
