"""Segments of a watch as its controller writes them."""

from __future__ import annotations

from typing import Any

from contract.jobs.lifecycle import Backend, close, submit
from contract.jobs.specs import Classify
from contract.jobs.status import State
from contract.keys.jobs import JobKeys
from contract.keys.watches import segment_job, watch_state
from contract.watches.segments import Segment, decide_segment

STAMP = "20261126t083012000"


def segment(backend: Backend, number: int, state: State | None = "succeeded", **end: Any) -> str:
    """The job of a segment of the watch `camera` that has ended so, with these counts, or of an open one."""
    store, job = backend.store, segment_job("camera", STAMP, number)
    root = watch_state("camera", STAMP)
    decide_segment(store, root, Segment(number=number, job=job, opened_at="2026-11-26T08:30:12.000Z", before=0))
    source = {"kind": "watch", "uri": "s3://photos/in/", "label": "s3://photos/in/"}
    output = f"s3://{store.bucket}/{JobKeys(job).root}out/"
    submit(backend, Classify(id=job, source=source, model="digits@1", weights_sha256="0" * 64, output=output))
    if state is not None:
        close(backend, job, state, **end)
    return job
