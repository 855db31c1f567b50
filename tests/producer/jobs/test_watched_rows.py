"""Whoever follows a watch gets each row once, whenever its segment's record, job and commits come to be."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from contract.backend.objects import ObjectStore
from contract.jobs.status import ShardCommit, Status
from contract.jobs.templates import Template
from contract.keys.jobs import JobKeys
from contract.watches.record import Watch
from contract.watches.segments import Segment, decide_segment
from producer.jobs import watched_rows


def commit(store: ObjectStore, job: str, shard: int, *names: str) -> None:
    """Commit a shard with a row for each name."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": list(names)}), sink)
    data, key = sink.getvalue(), f"jobs/{job}/out/{shard}.parquet"
    store.put(key, data)
    made = ShardCommit(
        shard=shard,
        items=len(names),
        ok=len(names),
        errors=0,
        output=f"s3://{store.bucket}/{key}",
        sha256=hashlib.sha256(data).hexdigest(),
    )
    store.put(JobKeys(job).commit(shard, 0), made.to_json())


class Steps(threading.Event):
    """In place of waiting for the next look: what happens until then. The last one stops who follows."""

    def __init__(self, *steps: Callable[[], None]) -> None:
        super().__init__()
        self._steps = list(steps)

    def wait(self, timeout: float | None = None) -> bool:
        self._steps.pop(0)()
        if not self._steps:
            self.set()
        return self.is_set()


def test_a_segment_whose_job_is_not_submitted_yet_is_followed(store: ObjectStore) -> None:
    # Given a watch of which a controller has decided a segment, whose job it submits a moment later,
    watch = Watch(
        name="camera",
        source="s3://photos/in/",
        every=5.0,
        start="beginning",
        overwrites="ignore",
        then="",
        owner="",
        created_at="2026-11-26T08:30:12.345Z",
        template=Template(spec={}),
    )

    def decide(number: int) -> None:
        decided = Segment(number=number, job=watch.job(number), opened_at="2026-11-26T08:31:00Z", before=0)
        decide_segment(store, watch.root, decided)

    def submit(number: int) -> None:
        store.put(JobKeys(watch.job(number)).active, b"")

    def label(number: int, shard: int) -> None:
        commit(store, watch.job(number), shard, f"{number}-{shard}.jpg")

    def end(number: int) -> None:
        job = JobKeys(watch.job(number))
        store.put(job.end, Status(id=watch.job(number), kind="classify", state="succeeded").to_json())
        store.delete(job.active)

    decide(0)
    stop = Steps(
        lambda: submit(0),
        lambda: label(0, 0),
        lambda: decide(1),
        lambda: label(0, 1),
        lambda: end(0),
        lambda: submit(1),
        lambda: label(1, 0),
        lambda: end(1),
        lambda: None,
    )
    # if I follow it, I expect each row once.
    found = [row["key"] for row in watched_rows.rows(store, watch, follow=True, stop=stop)]
    assert found == ["0-0.jpg", "0-1.jpg", "1-0.jpg"]
