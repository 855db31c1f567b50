"""A controller of one job, as a process of its own whose memory is measured: rebuild the ledger, finalize, say how.

Run as `python -m tests.drills.controller --commits N --items M`, with the addresses of the servers in the environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from contract.backend.broker import make_app
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.backend.queues import Queues
from contract.jobs import lifecycle
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Plan
from contract.settings import Settings
from tests.drills.peak import peak_mb
from tests.slow_store import BUCKET, JOB, KEYS
from worker.control.finalize import finalize


def main(commits: int, items: int) -> None:
    settings = Settings()
    store = ObjectStore(settings, patience=60)
    backend = Backend(store, Ledger(settings), Queues(make_app(settings)))
    spec = Classify(
        id=JOB,
        source=Source(kind="prefix", uri=f"s3://{BUCKET}/in/", label="in"),
        model="parity@1",
        weights_sha256="0" * 64,
        shard_size=items,
        output=f"s3://{BUCKET}/{KEYS.root}out/",
    )
    lifecycle.submit(backend, spec)
    store.put(KEYS.plan, Plan(shards=commits, items=commits * items).to_json())
    before = peak_mb()
    began = time.monotonic()
    backend.ledger.forget(JOB)
    rebuilt = lifecycle.rebuild(backend, JOB)
    rebuild_seconds = time.monotonic() - began
    began = time.monotonic()
    finalize(backend, JOB)
    finalize_seconds = time.monotonic() - began
    end = read_end(store, JOB)
    assert end is not None and rebuilt.state == "finalizing", rebuilt
    told = {
        "state": end.state,
        "ok": end.ok,
        "total": end.total,
        "labels": sum((end.labels or {}).values()),
        "rebuild_seconds": round(rebuild_seconds, 1),
        "finalize_seconds": round(finalize_seconds, 1),
        "before_mb": before,
        "peak_mb": peak_mb(),
        "numpy": "numpy" in sys.modules,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--commits", type=int, required=True)
    parser.add_argument("--items", type=int, required=True)
    told = parser.parse_args()
    main(told.commits, told.items)
