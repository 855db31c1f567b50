"""Recognition feeds generation and back: a watch sees a class rarely, and the night that it starts fills the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.drills.test_nightly import recall_of
from tests.mill import Mill
from tests.waiting import wait_until

GATE: dict[str, Any] = {"gate": "fashion-cnn", "min_score": 0.8, "shard_size": 64}
MANY, FEW = 40, 2


def test_a_class_that_a_watch_sees_rarely_is_filled(tmp_path: Path, figures: Callable[..., None]) -> None:
    with Mill(tmp_path, 1, cache_dir=tmp_path / "cache", watch_segment_images=MANY + FEW).running() as mill:
        # Given a camera that sees many sneakers and few bags, and pictures to judge by,
        client = mill.client
        camera = mill.bucket("camera")
        for seed, (label, count) in enumerate((("Sneaker", MANY), ("Bag", FEW)), 1):
            client.synthesize("fashion-gan", job=label.lower(), per_class=count, classes=[label], seed=seed, **GATE)
            assert mill.finished(label.lower()).state == "succeeded"
            client.export(label.lower(), "imagefolder", tmp_path / label)
        client.generate("fashion-gan", count=100, classes=("Sneaker", "Bag"), seed=99, job="real")
        # and a watch whose segments start the synthesis of the night,
        night: dict[str, Any] = {
            "model": "fashion-gan",
            "classes": ("Sneaker", "Bag"),
            "per_class": MANY,
            "extend": "garments",
            **GATE,
        }
        client.add_schedule("night", "synthesize", night, cron="0 0 29 2 *")
        client.add_watch("camera", "s3://camera/in/", model="fashion-cnn", every="500ms", then="night")
        for file in sorted([*(tmp_path / "Sneaker").rglob("*.png"), *(tmp_path / "Bag").rglob("*.png")]):
            camera.put(f"in/{file.name}", file.read_bytes())

        # if the segment ends, and I train on what the watch has labelled, and on what the night has made,
        (run,) = wait_until(lambda: client.schedule_history("night"), 120, "the segment to end")
        seen = Counter(row["label"] for row in client.results(str(run.after)))
        assert mill.finished(str(run.job), timeout=180).state == "succeeded"
        assert mill.finished("real").state == "succeeded"
        recall = {}
        for name, source in (("seen", "watch:camera"), ("filled", "dataset:garments")):
            client.train("cnn", source, name=name, job=name, epochs=4, settings=["size=28"])
            assert mill.finished(name, timeout=300).state == "succeeded"
            client.evaluate(name, "job:real", job=f"judge-{name}")
            assert mill.finished(f"judge-{name}", timeout=120).state == "succeeded"
            recall[name] = recall_of(client.backend.store, f"judge-{name}", "Bag")

        # I expect the rare class to be recognised far more often.
        assert seen == {"Sneaker": MANY, "Bag": FEW}
        assert client.dataset("garments").classes == {"Sneaker": MANY, "Bag": MANY}
        figures(seen=dict(seen), recall_seen=recall["seen"], recall_filled=recall["filled"])
        assert recall["filled"] > recall["seen"] + 0.2
