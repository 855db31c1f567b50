"""A camera's PC that is killed while it uploads, and a store that goes down: each photo is one row in the end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests import proxy
from tests.mill import ROOT, Mill, variables
from tests.sick_mill import many
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
PHOTOS = 240


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    with Mill(tmp_path_factory.mktemp("mill"), workers=1, watch_sweep_seconds=2.0).running() as made:
        yield made


@contextmanager
def uploading(mill: Mill, folder: Path, state: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`imagemill watch upload` as a user runs it, with `more` settings; killed at the end unless it has ended."""
    told = {
        "IMAGEMILL_STATE_DIR": str(state),
        "IMAGEMILL_REDIS_URL": "redis://127.0.0.1:9",
        **more,
    }  # it needs no Redis
    process = subprocess.Popen(
        [sys.executable, "-m", "producer", "watch", "upload", "camera", str(folder), "--settle", "100ms"],
        env={**os.environ, **variables(mill.settings), **told},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def gate(between: proxy.Proxy, count: int) -> Iterator[None]:
    """Let so many objects into the store, and then keep who sends more waiting until the block ends."""
    taken, over = itertools.count(1), threading.Event()

    def waits(method: str, path: str) -> proxy.Refusal | None:
        if method == "PUT" and next(taken) > count:
            over.wait()
            return 503, "SlowDown"
        return None

    through, between.refuses = between.refuses, waits
    try:
        yield
    finally:
        over.set()
        between.refuses = through


def uploaded(mill: Mill) -> int:
    return sum(1 for _ in mill.client.backend.store.list("feeds/camera/"))


def at_least(mill: Mill, count: int) -> bool:
    return uploaded(mill) >= count


def test_killed_amid_an_upload_and_the_store_too(mill: Mill, photos: dict[str, Path], tmp_path: Path) -> None:
    # Given a folder of photos, if I kill the upload in the middle, kill the store in the next one, and upload once more
    # while photos still come, I expect one row for each photo, though overwritten ones are labelled again.
    folder, state = tmp_path / "photos", tmp_path / "state"
    many(folder, photos, PHOTOS)
    mill.client.add_upload_watch("camera", model=MODEL, every="200ms", overwrites="again")
    some = PHOTOS // 8
    with proxy.before(mill.settings.s3_endpoint) as between:
        store = {"IMAGEMILL_S3_ENDPOINT": between.address}
        for part in range(1, 4):
            with gate(between, some), uploading(mill, folder, state, **store) as process:
                wait_until(partial(at_least, mill, part * some), 60, "some to be there")
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert uploaded(mill) == 3 * some

        with uploading(mill, folder, state, **store) as process:
            wait_until(lambda: uploaded(mill) >= PHOTOS // 2, 60, "half of them")
            mill.kill("s3")
            (folder / "last.jpg").symlink_to(photos["koala"])
            wait_until(lambda: _uploaded_or_none(mill) == PHOTOS + 1, 120, "all to be there")
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert said.splitlines()[-1].startswith("Sent ")
    # Without the record of what was sent, the bucket says so.
    with uploading(mill, folder, tmp_path / "elsewhere") as process:
        (folder / "one-more.jpg").symlink_to(photos["koala"])
        wait_until(lambda: uploaded(mill) == PHOTOS + 2, 60, "the last")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert "241 were there already" in said

    expected = [*(f"{n:04d}.jpg" for n in range(PHOTOS)), "last.jpg", "one-more.jpg"]

    def rows() -> Counter[str]:
        return Counter(row["key"].removeprefix("feeds/camera/") for row in mill.client.watched_rows("camera"))

    wait_until(lambda: len(rows()) == len(expected), 120, "a row for each")
    assert rows() == dict.fromkeys(expected, 1)


def _uploaded_or_none(mill: Mill) -> int | None:
    try:
        return uploaded(mill)
    except Exception:
        return None
