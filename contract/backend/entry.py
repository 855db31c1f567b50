"""Reads the entry of a job in the ledger, with its leases, as the status of the job; `entry.lua` names the keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from contract.jobs.status import ENDED, Shards, State, Status
from contract.records import Priority
from contract.times import iso


def status_of(fields: Mapping[str, str], held: Sequence[str], now: float) -> Status:
    """Return the status of a job by its ledger entry and its leases."""

    def number(name: str) -> int:
        return int(fields.get(name, 0))

    running_ok = sum(int(lease.split(" ")[2]) for lease in held)
    running_errors = sum(int(lease.split(" ")[3]) for lease in held)
    planned = number("shards_total") or number("planned") + number("extra")
    over = fields["state"] in (*ENDED, "finalizing") or number("over_budget") == 1
    ok, errors = number("ok") + running_ok, number("errors") + running_errors
    done = ok + errors
    complete = number("complete") == 1
    total = number("items") if complete else None
    started, finished = float(fields.get("started_at", 0)), float(fields.get("finished_at", 0))
    rate = eta = None
    # Rows of an earlier run do not count towards the rate.
    kept = number("kept")
    if started and done > kept:
        since, before = started, kept
        if not finished and float(fields.get("rate_t0", 0)):
            since, before = float(fields["rate_t0"]), int(float(fields["rate_d0"]))
        rate = round((done - before) / max((finished or now) - since, 0.001), 1)
        if total is not None and not finished and rate > 0:
            eta = round((total - done) / rate, 1)
    return Status(
        id=fields["id"],
        kind=fields["kind"],
        state=cast("State", fields["state"]),
        total=total,
        done=done,
        ok=ok,
        errors=errors,
        shards=Shards(
            total=planned,
            done=number("shards_done"),
            running=len(held),
            queued=0 if over else max(0, planned - number("shards_done") - len(held)),
        ),
        images_per_second=rate,
        eta_seconds=eta,
        created_at=iso(fields.get("created_at")) or "",
        started_at=iso(started),
        finished_at=iso(finished),
        output=fields.get("output", ""),
        model=fields.get("model", ""),
        source=fields.get("source", ""),
        skipped=number("skipped"),
        reason=fields.get("reason"),
        owner=fields.get("owner", ""),
        priority=cast("Priority", fields.get("priority", "normal")),
        weight=float(fields.get("weight", 1)),
        max_slots=number("max_slots"),
        waiting_for=None if over or held else fields.get("waiting_for"),
        metrics=json.loads(fields["metrics"]) if "metrics" in fields else None,
    )
