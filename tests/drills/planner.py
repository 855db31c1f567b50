"""A planner of one job, as a process of its own whose memory and time are measured.

Run as `python -m tests.drills.planner --keys N`, with the addresses of the servers in the environment.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from contract.backend.broker import Queues, make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.jobs import lifecycle
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from tests.listed_store import JOB, spec
from worker.control.plan import plan


def main(keys: int) -> None:
    settings = Settings()
    backend = Backend(ObjectStore(settings, patience=60), Ledger(settings), Queues(make_app(settings)))
    lifecycle.submit(backend, spec(keys))
    before = _peak()
    began, cpu = time.monotonic(), time.process_time()
    plan(backend, JOB)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    told = {
        "state": backend.ledger.state(JOB),
        "keys_a_second": round(keys / seconds),
        "cpu_us_a_key": round(1e6 * cpu / keys, 1),
        "before_mb": before,
        "peak_mb": _peak(),
    }
    print(json.dumps(told), flush=True)


def _peak() -> int:
    # Not `ru_maxrss`, which a child inherits from the process that forked it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, required=True)
    main(parser.parse_args().keys)
