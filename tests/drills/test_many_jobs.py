"""A page of jobs costs the same however many have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from contract.backend.objects import ObjectStore
from contract.jobs import index, retention
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from contract.times import iso
from producer import Client
from tests.mill import variables

PAGE = 50


def write_job(store: ObjectStore, number: int, ended: float, *, entered: bool, **counts: int) -> None:
    """Write what is left of a job that has ended: its spec and its end, with `counts` of its images."""
    own = JobKeys(f"classify-{number:06d}")
    spec = Classify(
        id=own.id,
        source=Source(kind="prefix", uri=f"s3://{store.bucket}/photos/", label="photos"),
        model="efficientnet-lite0@1",
        weights_sha256="0" * 64,
        output=f"s3://{store.bucket}/{own.root}out/",
    )
    at = iso(ended) or ""
    said = {"kind": "classify", "state": "succeeded", "created_at": at, "finished_at": at, "model": spec.model}
    end = Status.model_validate({"id": own.id, **said, **counts})
    store.put(own.spec, json.dumps({"created_at": at, "spec": spec.model_dump()}).encode())
    store.put(own.end, end.to_json())
    if entered:
        index.record_end(store, spec, end, 0)


@pytest.mark.timeout(3600)
def test_a_page_of_many_ended_jobs(
    backend: Backend, settings: Settings, long: bool, figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given many jobs that have ended, the oldest of them before there was an index,
    count, entered = (100_000, 98_000) if long else (800, 400)
    now = time.time()
    with ThreadPoolExecutor(16) as threads:

        def write(number: int) -> None:
            write_job(backend.store, number, now - count + number, entered=number >= count - entered)

        list(threads.map(write, range(count)))
    began = time.monotonic()
    while not retention.build(backend.store, 500):
        pass
    built = time.monotonic() - began
    calls = [0]
    call = ObjectStore._call

    def counted(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        return call(*args, **options)

    monkeypatch.setattr(ObjectStore, "_call", counted)
    with closing(Client(settings)) as client:
        # if the newest are listed, and then those from the middle,
        newest = client.jobs(limit=PAGE)
        of_first, calls[0] = calls[0], 0
        middle = client.jobs(limit=PAGE, before=f"classify-{count // 2:06d}")
        of_second = calls[0]
    began = time.monotonic()
    listed = subprocess.run(
        [sys.executable, "-m", "producer", "jobs", "--json"],
        env={**os.environ, **variables(settings)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    took = time.monotonic() - began
    figures(
        jobs=count,
        calls_first_page=of_first,
        calls_middle=of_second,
        command_seconds=round(took, 2),
        build_seconds=round(built, 1),
    )
    # I expect the right ones, for one call a job and a few more,
    assert [one.id for one in newest] == [f"classify-{n:06d}" for n in range(count - 1, count - 1 - PAGE, -1)]
    assert [one.id for one in middle] == [f"classify-{count // 2 - n:06d}" for n in range(1, PAGE + 1)]
    assert [json.loads(line)["id"] for line in listed] == [one.id for one in newest]
    assert max(of_first, of_second) <= PAGE + 10
    # and at full length what was promised: two seconds.
    assert not long or took <= 2.0
