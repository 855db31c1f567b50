"""Each page of the console costs the same however many jobs have ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx2
import pytest

from contract.backend.objects import ObjectStore
from contract.datasets.records import DatasetRecord, Part, Version
from contract.jobs import retention
from contract.keys.datasets import dataset_record, dataset_version
from contract.keys.models import model_record
from contract.models.registry import File, Model, Preprocess, Task
from contract.settings import Settings
from producer import Client
from tests.browser.pages import left_out, paths
from tests.drills.test_many_jobs import PAGE, write_job
from tests.hooks import told_webhook
from tests.producer.web.console.rows import commit_rows
from tests.producer.web.console.test_datasets import ROWS, select
from tests.serving import serving

BAR_MS = 200.0
"""95 of 100 answers, at full length, where nothing else runs."""
OPEN = 5
"""Jobs that have not ended."""
MOST_CALLS = PAGE + 8 * OPEN + 10
"""Calls to the store of the dearest page, the list: one for a job that has ended, a few for one that has not."""
REVIEWED = 500
"""Rows of the job that is reviewed."""


def fill(store: ObjectStore, settings: Settings, count: int) -> str:
    """Write what the pages show, and return the job that has rows."""
    name = "efficientnet-lite0"
    model = Model(
        name=name,
        version=1,
        family=name,
        labels=tuple(f"label-{n}" for n in range(1000)),
        preprocess=Preprocess(size=224, crop=0.875, interpolation="bicubic", mean=127.0, std=128.0, channels=3),
        weights=File(name="weights.safetensors", sha256="0" * 64, bytes=1),
    )
    store.put(model_record(name, 1), model.to_json())
    store.put("photos/one.jpg", b"no image")
    now = time.time()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: write_job(store, n, now - count + n, entered=True), range(count - 1)))
    write_job(store, count - 1, now, entered=True, ok=REVIEWED, done=REVIEWED, total=REVIEWED)
    while not retention.build(store, 500):
        pass
    last = f"classify-{count - 1:06d}"
    scores = ((n, 0.5 + n / (2 * REVIEWED)) for n in range(REVIEWED))
    rows = [
        {
            "key": f"{n:06d}.jpg",
            "label": "label-1",
            "score": score,
            "model": f"{name}@1",
            "top_k": [
                {"label": "label-1", "label_index": 1, "score": score},
                {"label": "label-2", "label_index": 2, "score": 1 - score},
            ],
        }
        for n, score in scores
    ]
    commit_rows(store, last, rows)
    source = f"s3://{store.bucket}/photos/"
    with closing(Client(settings)) as client:
        for _ in range(OPEN):
            client.classify(source, model=name)
        client.add_watch("camera", source, model=name)
        client.add_schedule("nightly", "classify", {"source": source, "model": name}, cron="0 2 * * *")
        make_images(store, client)
    return last


def make_images(store: ObjectStore, client: Client) -> None:
    """Write the candidates of a synthesis, and the dataset that took them."""
    weights = File(name="weights.safetensors", sha256="0" * 64, bytes=1)
    pre = Preprocess(size=32, crop=1.0, interpolation="bicubic", mean=127.5, std=127.5, channels=3)
    labels = ("disc", "square")
    kinds: tuple[tuple[str, str, Task], ...] = (("maker", "gan", "generate"), ("shapes", "cnn", "classify"))
    for name, family, task in kinds:
        model = Model(name=name, version=1, family=family, task=task, labels=labels, preprocess=pre, weights=weights)
        store.put(model_record(name, 1), model.to_json())
    job = client.synthesize("maker", gate="shapes", per_class=2, job="made").id
    commit = select(store, job, ROWS)
    at = "2026-11-26T00:00:00.000Z"
    store.put(dataset_record("shapes"), DatasetRecord(name="shapes", owner="ann", created_at=at).to_json())
    version = Version(
        dataset="shapes",
        number=1,
        at=at,
        job=job,
        model="maker@1",
        weights_sha256="0" * 64,
        gate="shapes@1",
        gate_sha256="0" * 64,
        seed=1,
        labels=labels,
        size=32,
        channels=3,
        image_format="png",
        accepted={"disc": 2, "square": 1},
        parts=(Part(index=str(commit.output), sha256=str(commit.sha256), accepted=3),),
    )
    store.put(dataset_version("shapes", 1), version.to_json())


@pytest.mark.timeout(3600)
def test_every_page_with_many_ended_jobs(
    settings: Settings,
    store: ObjectStore,
    long: bool,
    figures: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a bucket with many jobs that have ended, and some that have not,
    count, times = (10_000, 200) if long else (300, 3)
    job = fill(store, settings, count)
    hook = told_webhook(store, "ann", "/told", ["delivered"] * 100)
    calls = [0]
    call = ObjectStore._call

    def counted(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        return call(*args, **options)

    monkeypatch.setattr(ObjectStore, "_call", counted)
    slow: dict[str, float] = {}
    dear: dict[str, int] = {}
    with serving(settings, store) as api, httpx2.Client(base_url=api.url, timeout=60) as person:
        headers = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
        signed_in = person.post("/console/sign-in", data={"token": api.token("admin")}, headers=headers)
        assert signed_in.status_code == 303
        calls[0] = 0
        first = person.get("/console/jobs").text
        dear["jobs"] = calls[0]  # ends do not change, so a server that has read some keeps them
        older = first.partition('<a href="/console/jobs?cursor=')[2].partition('"')[0]
        visited = [
            *paths(job, "efficientnet-lite0@1", "made", "shapes", hook),
            f"jobs?cursor={older}",
            "parts/running",
            "parts/ended",
        ]
        # if each page is asked for again and again,
        for path in visited:
            took: list[float] = []
            worked = time.process_time()
            for _ in range(times):
                calls[0], begun = 0, time.perf_counter()
                answer = person.get(f"/console/{path}")
                took.append((time.perf_counter() - begun) * 1000)
                dear[path] = max(dear.get(path, 0), calls[0])
                # I expect it every time,
                assert answer.status_code == (404 if path.endswith("none-of-this-name") else 200), path
            took.sort()
            slow[path] = took[int(len(took) * 0.95)]
            figures(
                page=path[:40],
                jobs=count,
                cpu_ms=round((time.process_time() - worked) * 1000 / times),  # the server's, and a little of the test's
                p50_ms=round(took[len(took) // 2]),
                p95_ms=round(slow[path]),
                store_calls=dear[path],
            )
    # for a number of calls to the store that does not grow with the jobs,
    assert not left_out(visited)
    assert max(dear.values()) <= MOST_CALLS, dear
    # and at full length as soon as was promised.
    assert not long or max(slow.values()) <= BAR_MS, slow
