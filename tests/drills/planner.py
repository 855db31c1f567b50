"""A planner of one job, as a process of its own whose memory and time are measured.

Run as `python -m tests.drills.planner --keys N --bucket B`, with the addresses of the servers in the environment.
"""

from __future__ import annotations

import argparse
import json
import time

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.jobs import lifecycle
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from tests.drills.peak import peak_mb
from tests.listed_store import JOB, spec
from worker.control.plan import plan


def main(keys: int, bucket: str) -> None:
    settings = Settings()
    backend = Backend(ObjectStore(settings, patience=60), Ledger(settings), Queues(make_app(settings)))
    lifecycle.submit(backend, spec(bucket))
    before = peak_mb()
    began, cpu = time.monotonic(), time.process_time()
    plan(backend, JOB)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    told = {
        "state": backend.ledger.state(JOB),
        "keys_a_second": round(keys / seconds),
        "cpu_us_a_key": round(1e6 * cpu / keys, 1),
        "before_mb": before,
        "peak_mb": peak_mb(),
        "redis_kb": sum(backend.ledger.redis.memory_usage(name) or 0 for name in backend.ledger.keys.job(JOB)) // 1024,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--bucket", required=True)
    given = parser.parse_args()
    main(given.keys, given.bucket)
