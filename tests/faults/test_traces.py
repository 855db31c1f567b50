"""A job through real processes is one trace, whose spans meet although nobody tells them of each other."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.telemetry import traces
from contract.telemetry.traces import Identity
from tests.mill import Mill
from tests.otlp import Sink, collecting
from tests.synthetic import colour
from tests.waiting import wait_until

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is not installed: pip install '.[otel]'")

IMAGES, SHARD = 40, 16


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with pytest.MonkeyPatch.context() as patch, collecting(patch) as found:
        yield found
        traces.close()


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Mill]:
    # A lease that lapses on a busy machine, or a second copy of a shard, has spans of its own.
    quiet: dict[str, Any] = {"lease_seconds": 30.0, "speculation": "off"}
    with Mill(tmp_path_factory.mktemp("traced"), workers=2, traces=1.0, log="json", **quiet).running() as whole:
        yield whole


def test_a_job_is_one_trace(mill: Mill, sink: Sink) -> None:
    # Given a job of three shards, with a bad file, on two workers,
    store = mill.client.backend.store
    for n in range(IMAGES):
        colour(n % 10, n).save(file := io.BytesIO(), "PNG")
        store.put(f"photos/{n:03d}.png", file.getvalue())
    store.put("photos/bad.jpg", b"")
    job = mill.client.classify(f"s3://{store.bucket}/photos/", model="efficientnet-lite0", shard_size=SHARD).id
    status = mill.finished(job)
    assert (status.ok, status.errors, status.shards.total) == (IMAGES, 1, 3)
    identity = Identity.of(job, status.created_at)
    trace, root = f"{identity.trace:032x}", f"{identity.root:016x}"

    # if its spans are collected, I expect all of them in one trace,
    def names() -> Counter[str]:
        return Counter(span.name for span in sink.trace(trace))

    expected = {"job": 1, "submit": 1, "plan": 1, "shard": 3, "make": 3, "commit": 3, "finalize": 1}
    wait_until(lambda: names() == expected, 30, "the spans of all processes")
    spans = sink.trace(trace)
    assert {span.trace for span in sink.spans(job)} == {trace}

    # below the span of the job, and the parts of a shard below their shard,
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        if span.name == "job":
            assert (span.id, span.parent) == (root, "")
        elif span.name in ("make", "commit"):
            assert by_id[span.parent].name == "shard"
            assert by_id[span.parent].start <= span.start <= span.end <= by_id[span.parent].end
        else:
            assert span.parent == root
    assert len({span.parent for span in spans if span.name == "make"}) == 3

    # by the processes that did the work, with what they did,
    services = {span.name: span.service for span in spans}
    assert services["submit"] == "imagemill-producer"
    assert services["plan"] == services["finalize"] == services["job"] == "imagemill-controller"
    assert services["shard"] == "imagemill-worker"
    shards = [span.attributes for span in spans if span.name == "shard"]
    assert sorted(found["imagemill.shard"] for found in shards) == [0, 1, 2]
    assert sum(found["imagemill.images"] for found in shards) == IMAGES
    assert {found["imagemill.outcome"] for found in shards} == {"committed"}
    [whole] = [span for span in spans if span.name == "job"]
    assert (whole.attributes["imagemill.state"], whole.attributes["imagemill.images"]) == ("succeeded", IMAGES)
    assert not [span.error for span in spans if span.error], "a bad file is a row, and no error of a span"

    # and the trace in each line of a worker's log about its shard.
    about = [
        line
        for name in mill.workers
        for line in map(json.loads, mill.log(name).rpartition("\n")[0].splitlines())
        if line.get("job") == job and "shard" in line
    ]
    assert about and {line["trace"] for line in about} == {trace}


def test_a_job_that_fails_and_goes_on_says_so(mill: Mill, sink: Sink, tmp_path: Path) -> None:
    # Given a job that fails by its error budget,
    colour(1, 1).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"")
    job = mill.client.classify(tmp_path, model="efficientnet-lite0", max_errors="0").id
    assert mill.finished(job).state == "failed"

    # I expect its span to be an error with the reason,
    def named(name: str) -> bool:
        return any(span.name == name for span in sink.spans(job))

    wait_until(lambda: named("job"), 30, "the end of the job")
    [first] = [span for span in sink.spans(job) if span.name == "job"]
    assert "error" in first.error

    # and if it is run again, another one below it, since the first was sent.
    mill.client.retry(job)
    mill.finished(job)
    wait_until(lambda: named("again"), 30, "the second end of the job")
    [second] = [span for span in sink.spans(job) if span.name == "again"]
    assert (second.trace, second.parent) == (first.trace, first.id)
