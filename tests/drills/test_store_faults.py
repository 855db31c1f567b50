"""A store that refuses, cuts and forgets who asks: no image is blamed for it, and nobody asks in a hot loop."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests import proxy
from tests.mill import check_complete
from tests.paced_mill import PacedMill
from tests.waiting import wait_until

SLOW_DOWN, CUT = 0.05, 0.01
"""Shares of the requests that are refused with 503, and of the answers that end in the middle."""


def test_a_store_fails_in_every_way(
    tmp_path: Path, photos: dict[str, Path], long: bool, figures: Callable[..., None]
) -> None:
    images, expired = (5000, 120.0) if long else (240, 6.0)
    draws, lock = random.Random(0), threading.Lock()
    asked = {"requests": 0, "slow_down": 0, "cut": 0, "expired": 0}
    over = threading.Event()

    def drawn(what: str, share: float) -> bool:
        with lock:
            asked["requests"] += what == "slow_down"
            hit = draws.random() < share
            asked[what] += hit
            return hit

    def refuses(method: str, path: str) -> proxy.Refusal | None:
        if over.is_set():
            with lock:
                asked["expired"] += 1
            return 403, "ExpiredToken"
        return (503, "SlowDown") if drawn("slow_down", SLOW_DOWN) else None

    # Given workers and a controller that reach their store through what fails,
    with proxy.before("") as between:
        mill = PacedMill(tmp_path, workers=2, s3_through=between.address)
        between.upstream = mill.settings.s3_endpoint
        with mill.running():
            files = [path.read_bytes() for path in photos.values()]
            keys = [f"{n:05d}.jpg" for n in range(images)]
            for n, key in enumerate(keys):
                mill.client.backend.store.put(f"photos/{key}", files[n % len(files)])
            between.refuses = refuses
            between.cuts = lambda method, path: method == "GET" and drawn("cut", CUT)

            # if they label objects of that store, and their credentials expire in the middle for a while,
            mill.slow(0.0 if long else 0.05)
            source = f"s3://{mill.settings.bucket}/photos/"
            job = mill.client.classify(source, model="efficientnet-lite0", shard_size=32, max_errors="0").id
            mill.begun(job, images // 8)
            over.set()
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > expired, expired + 1, "the credentials to be renewed")
            over.clear()
            seconds = time.monotonic() - began
            status = mill.finished(job, timeout=3600)

            # I expect a row for each image, none of them an error, and a few requests a second meanwhile.
            check_complete(mill.client, job, [f"photos/{key}" for key in keys])
            figures(images=images, **asked, expired_for=f"{expired:.0f} s", false_rows=status.errors)
            assert (status.state, status.errors) == ("succeeded", 0)
            assert asked["slow_down"] and asked["expired"]
            assert asked["expired"] / seconds < 100, "a hot loop"
