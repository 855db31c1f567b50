"""Drill: a hundredth of the addresses drip, or ask to come back in an hour; the others do not notice."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.mill import Mill
from tests.sites import LOOPBACK, drip, send, site
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"


class Web:
    """A site with good images, images that drip, and images that are busy; it notes how long each was asked for."""

    def __init__(self, photo: bytes) -> None:
        self.photo = photo
        self.gone = threading.Event()
        self.bad_seconds: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._lock = threading.Lock()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/good"):
            send(request, 200, self.photo)
            return
        with self._lock:
            first = self._first.setdefault(request.path, time.monotonic())
        if request.path.startswith("/drip"):
            drip(request, self.gone, every=0.5)
        else:
            with suppress(OSError):
                send(request, 429, Retry_After="3600")
        with self._lock:
            self.bad_seconds[request.path] = time.monotonic() - first


def label(mill: Mill, name: str, urls: list[str], good: int) -> tuple[str, float]:
    """Label some addresses; return the job, and the good images a second until the last of them was labelled."""
    lines = b"\n".join(json.dumps({"uri": url}).encode() for url in urls)
    mill.client.backend.store.put(f"{name}.jsonl", lines)
    began = time.monotonic()
    job = mill.client.classify(
        f"s3://{mill.settings.bucket}/{name}.jsonl", model=MODEL, max_errors="100%", shard_size=512
    ).id
    wait_until(lambda: (mill.client.status(job).ok or 0) >= good, 600, f"{good} good images of {job}")
    return job, good / (time.monotonic() - began)


@pytest.mark.timeout(3600)
def test_a_hundredth_of_slow_addresses(tmp_path: Path, long: bool, figures: Callable[..., None]) -> None:
    # Given a site one of whose hundred images never arrives, and a watchdog that is less patient than its deadline,
    count, seconds, stall = (10_000, 30.0, 15.0) if long else (300, 9.0, 6.0)
    bad = max(4, count // 100)
    web = Web((Path(__file__).parents[2] / "deploy" / "photos" / "koala.jpg").read_bytes())
    with (
        site(web.answer) as port,
        Mill(tmp_path, workers=1, fetch_seconds=seconds, stall_seconds=stall).running() as mill,
    ):
        base = f"http://{LOOPBACK}:{port}"
        good = [f"{base}/good/{n}.jpg" for n in range(count - bad)]
        pid = mill.supervisor.pid("worker-0")
        _, alone = label(mill, "alone", good, len(good))
        urls = list(good)
        for n in range(bad):
            urls.insert(n * len(urls) // bad, f"{base}/{'drip' if n % 2 else 'busy'}/{n}.jpg")
        # if I label all, I expect a row for each, and the bad ones to be told by their code,
        job, beside = label(mill, "beside", urls, len(good))
        status = mill.finished(job, 240)
        codes = Counter(row["error_code"] or "ok" for row in mill.client.results(job))
        wait_until(lambda: len(web.bad_seconds) == bad, 60, "the site to see all bad ones end")
        exits = (mill.supervisor.pid("worker-0") != pid) + mill.log("worker-0").count("made no progress")
        figures(
            images=count,
            bad=bad,
            exits=exits,
            longest_bad_s=f"{max(web.bad_seconds.values()):.1f}",
            alone_per_s=f"{alone:.0f}",
            beside_per_s=f"{beside:.0f}",
            speed=f"{beside / alone:.2f}",
        )
        web.gone.set()
        assert codes == {"ok": len(good), "fetch_failed": bad}
        assert status.done == status.total == count
        # no worker that left,
        assert exits == 0
        # and no bad one that took longer than its deadline, with room for a busy machine.
        assert max(web.bad_seconds.values()) <= 60
