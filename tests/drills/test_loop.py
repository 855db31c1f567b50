"""Recognition feeds generation and back: what a watch sees rarely is made in the next night, and learnt from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contract.jobs.specs import Synthesize
from contract.keys.jobs import JobKeys
from tests.drills.test_nightly import recall_of, turn_to
from tests.mill import Mill
from tests.waiting import wait_until

GATE: dict[str, Any] = {"gate": "fashion-cnn", "min_score": 0.8, "shard_size": 64, "classes": ("Sneaker", "Bag")}
MANY, FEW, APART = 40, 2, 20
MIDNIGHT = datetime(2027, 1, 1, tzinfo=UTC)
TRAINING: dict[str, Any] = {"epochs": 4, "settings": ["size=28"]}


def test_what_a_watch_sees_rarely_is_made_in_the_next_night_and_learnt(
    tmp_path: Path, figures: Callable[..., None]
) -> None:
    stack = Mill(tmp_path, 1, "tests.faults.driven", reconcile_seconds=0.5, watch_segment_images=MANY + FEW)
    with stack.running() as mill:
        # Given a watch of a camera, and a nightly schedule that fills what it sees rarely,
        client = mill.client
        store, camera, sets = client.backend.store, mill.bucket("camera"), mill.bucket("sets")
        turn_to(mill, MIDNIGHT - timedelta(hours=1))
        night = {"model": "fashion-gan", "balance": "watch:camera", "extend": "garments", **GATE}
        client.add_schedule("fill", "synthesize", night, cron="0 0 * * *")
        client.add_watch("camera", "s3://camera/in/", model="fashion-cnn", every="500ms")
        # and many sneakers and few bags before the camera, and others to judge by,
        client.synthesize("fashion-gan", job="world", per_class=MANY + APART, seed=1, **GATE)
        assert mill.finished("world", timeout=120).state == "succeeded"
        client.export("world", "imagefolder", tmp_path / "world")
        for label, seen in (("Sneaker", MANY), ("Bag", FEW)):
            files = sorted((tmp_path / "world/train" / label).glob("*.png"))
            for n, file in enumerate(files):
                where, key = (camera, f"in/{file.name}") if n < seen else (sets, f"judge/{label}/{file.name}")
                where.put(key, file.read_bytes())
        (segment,) = wait_until(lambda: ended_segments(mill), 120, "the segment to end")
        client.train("cnn", "watch:camera", name="seen", job="seen", **TRAINING)

        # if a night passes, and another schedule learns from what was seen and what was made,
        turn_to(mill, MIDNIGHT)
        fill, train = "fill-20270101t0000", "learn-20270101t0100"
        wait_until(lambda: store.exists(JobKeys(fill).spec), 60, fill)
        assert mill.finished(fill, timeout=180).state == "succeeded"
        learn = {"family": "cnn", "source": ["watch:camera", "dataset:garments"], "name": "garments", **TRAINING}
        client.add_schedule("learn", "train", learn, cron="0 1 * * *")
        turn_to(mill, MIDNIGHT + timedelta(hours=1))
        wait_until(lambda: store.exists(JobKeys(train).spec), 60, train)
        recall = {}
        for name, job in (("seen", "seen"), ("garments", train)):
            assert mill.finished(job, timeout=300).state == "succeeded"
            client.evaluate(name, "s3://sets/judge/", job=f"judge-{name}")
            assert mill.finished(f"judge-{name}", timeout=120).state == "succeeded"
            recall[name] = recall_of(store, f"judge-{name}", "Bag")

        # I expect the rare class to be filled by what the watch has counted,
        counted = Counter(row["label"] for row in client.results(segment))
        assert counted == {"Sneaker": MANY, "Bag": FEW}
        made = Synthesize.model_validate(json.loads(store.get(JobKeys(fill).spec))["spec"])
        assert made.balance is not None and made.balance.seen == counted
        assert client.dataset("garments").classes == {"Bag": MANY - FEW}
        # and to be recognised far more often.
        figures(seen=dict(counted), recall_seen=recall["seen"], recall_filled=recall["garments"])
        assert recall["garments"] > recall["seen"] + 0.2


def ended_segments(mill: Mill) -> list[str]:
    """The segments of the watch that have succeeded."""
    return [one.id for one in mill.client.jobs() if one.id.startswith("camera-") and one.state == "succeeded"]
