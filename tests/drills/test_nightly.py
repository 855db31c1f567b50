"""A dataset that grows at each tick, two clocks, a worker killed in each tick: the same bytes as undisturbed.

The test is the clock. The second half feeds a class that is rare, and trains on what grew.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.datasets.contents import tables
from contract.datasets.versions import Datasets
from contract.jobs.options import SynthesizeOptions, parse_options
from contract.jobs.schedules import Schedules, job_id
from contract.keys.datasets import dataset_versions
from contract.keys.jobs import JobKeys
from producer.jobs.requests import make_request, make_template
from producer.jobs.schedules import new_schedule
from tests.mill import Mill
from tests.waiting import wait_until

BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CLASSES = ("Sneaker", "Bag")
ASKED: dict[str, Any] = {"gate": "fashion-cnn", "min_score": 0.5, "dedup": 0.001, "shard_size": 64, "classes": CLASSES}


def turn_to(mill: Mill, now: datetime) -> None:
    mill.client.backend.ledger.redis.set(f"{mill.settings.namespace}:test:time", now.timestamp())


def begin(mill: Mill, per_class: int) -> None:
    """A nightly schedule that extends `garments`, whose first tick is `BEGIN`."""
    store = mill.client.backend.store
    asked = {"model": "fashion-gan", "extend": "garments", "per_class": per_class, **ASKED}
    template = make_template(make_request(parse_options(SynthesizeOptions, asked), store, mill.settings))
    made = new_schedule("nightly", template, cron="0 0 * * *", timezone="UTC", missed="run", now=BEGIN - DAY)
    Schedules(store).add(made)


def nights(mill: Mill, count: int, disturb: Callable[[int, str], None]) -> None:
    """Turn the clock through so many nights, each once the job of the last has ended."""

    def begun(job: str) -> bool:
        return mill.client.backend.store.exists(JobKeys(job).spec)

    for n in range(count):
        now = BEGIN + n * DAY
        job = job_id("nightly", now)
        turn_to(mill, now)
        wait_until(partial(begun, job), 60, f"the job {job}")
        disturb(n, job)
        end = mill.finished(job, timeout=180)
        assert (end.state, end.reason) == ("succeeded", None)


def contents(store: ObjectStore) -> dict[str, str]:
    """The hash of each version, and of each index and tar that a version names."""
    found = {entry.key: digest(store.get(entry.key)) for entry in store.list(dataset_versions("garments"))}
    for version in Datasets(store).grown("garments").versions:
        for part in version.parts:
            for address in (part.index, part.index.removesuffix(".parquet") + ".tar"):
                found[address] = digest(store.get(parse_s3(address)[1]))
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_nights(tmp_path: Path, long: bool, figures: Callable[..., None]) -> None:
    count, per_class = (5, 50) if long else (3, 8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    # Given a dataset that grows each night, if a worker is killed in each, and one of two clocks every other night,
    with Mill(tmp_path / "a", 2, "tests.faults.driven", clocks=2, reconcile_seconds=0.5).running() as mill:
        turn_to(mill, BEGIN - DAY)
        begin(mill, per_class)

        def kill(n: int, job: str) -> None:
            wait_until(lambda: mill.client.status(job).state != "queued", 60, f"{job} to begin")
            mill.kill(mill.workers[n % 2])
            if n % 2:
                mill.kill(mill.clocks[n // 2 % 2])

        nights(mill, count, kill)
        store = mill.client.backend.store
        disturbed = contents(store)
        grown = Datasets(store).grown("garments")
        rows = [row for _, table in tables(store, grown) for row in table.to_pylist() if row["accepted"]]

        # I expect a version a night with as many new images of each class,
        assert [version.number for version in grown.versions] == list(range(1, count + 1))
        assert all(version.accepted == dict.fromkeys(CLASSES, per_class) for version in grown.versions)
        assert len({version.seed for version in grown.versions}) == count
        assert Datasets(store).resolve(f"garments@{BEGIN + 2 * DAY:%Y-%m-%d}") == 3
        # no image twice over all of them, none nearer to an earlier one than asked for,
        assert len(rows) == count * per_class * len(CLASSES)
        assert len({row["key"] for row in rows}) == len({row["sha256"] for row in rows}) == len(rows)
        assert all(row["duplicate_distance"] is None or row["duplicate_distance"] >= 0.001 for row in rows)
        # one export with one index, one card and one Croissant file over all,
        stats = mill.client.export("dataset:garments", "imagefolder", tmp_path / "out")
        assert stats.accepted == len(rows)
        listed = [json.loads(line) for line in (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()]
        assert len({one["file_name"] for one in listed}) == len(rows)
        assert f"| `garments@{count}` |" in (tmp_path / "out/README.md").read_text()
        assert json.loads((tmp_path / "out/croissant.json").read_text())["name"] == "garments"

    # and the same bytes of a stack that nobody disturbs, with another batch size.
    with Mill(tmp_path / "b", 1, "tests.faults.driven", reconcile_seconds=0.5, batch_size=7).running() as other:
        turn_to(other, BEGIN - DAY)
        begin(other, per_class)
        nights(other, count, lambda n, job: None)
        assert contents(other.client.backend.store) == disturbed

    figures(versions=count, images=len(rows), duplicates=0, objects_compared=len(disturbed))


def test_a_rare_class_is_filled_by_the_next_night(tmp_path: Path, figures: Callable[..., None]) -> None:
    # Given a dataset with two images of one class and many of the other, and images to test on,
    with Mill(tmp_path, 1).running() as mill:
        client = mill.client
        asked: dict[str, Any] = {"gate": "fashion-cnn", "min_score": 0.8, "shard_size": 64}
        client.generate("fashion-gan", count=100, classes=CLASSES, seed=99, job="real")
        for number, (label, count) in enumerate((("Sneaker", 60), ("Bag", 2), ("Bag", 58)), 1):
            job = f"night-{number}"
            client.synthesize(
                "fashion-gan", job=job, per_class=count, classes=[label], seed=number, extend="garments", **asked
            )
            assert mill.finished(job).state == "succeeded"
        assert mill.finished("real").state == "succeeded"

        # if I train on it before and after a night that fills the rare class,
        recall: dict[int, float] = {}
        for version in (2, 3):
            source, name = f"dataset:garments@{version}", f"garments-{version}"
            client.train("cnn", source, name=name, job=name, epochs=4, settings=["size=28"])
            assert mill.finished(name, timeout=300).state == "succeeded"
            client.evaluate(name, "job:real", job=f"judge-{version}")
            end = mill.finished(f"judge-{version}", timeout=120)
            assert end.state == "succeeded"
            recall[version] = recall_of(client.backend.store, f"judge-{version}", "Bag")

        # I expect it to be recognised far more often.
        assert Counter(client.dataset("garments@2").classes) == {"Sneaker": 60, "Bag": 2}
        figures(recall_before=recall[2], recall_after=recall[3])
        assert recall[3] > recall[2] + 0.2


def recall_of(store: ObjectStore, job: str, label: str) -> float:
    found = json.loads(store.get(f"{JobKeys(job).root}out/evaluation.json"))
    return float(next(one["recall"] for one in found["classes"] if one["name"] == label))
