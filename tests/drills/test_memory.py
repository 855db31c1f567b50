"""Files of 60 MB and PNGs of 100 megapixels, by the hundreds: the memory of a worker stays within its budget."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.acceptance.conftest import MODEL
from tests.attacks.test_memory import png
from tests.mill import Mill

MB, GB = 10**6, 10**9
LANES = 2
SPARE = 100 * MB
"""A decoder, without pixels, of the lane that a worker has beyond those."""


def bmp(side: int) -> bytes:
    """A file of three bytes a pixel."""
    row = (3 * side + 3) // 4 * 4
    head = b"BM" + (54 + row * side).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    sizes = (40, side, side)
    info = b"".join(n.to_bytes(4, "little") for n in sizes) + (1).to_bytes(2, "little") + (24).to_bytes(2, "little")
    return head + info + bytes(24) + bytes(row * side)


class Peak:
    """The most memory that a process and its children had together, in bytes."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended, self.bytes = pid, threading.Event(), 0

    def watch(self) -> None:
        while not self._ended.wait(0.05):
            self.bytes = max(self.bytes, sum(_status(pid, "VmRSS") for pid in self._family()))

    def end(self) -> None:
        self._ended.set()
        self.bytes = max(self.bytes, _status(self._pid, "VmHWM"))

    def _family(self) -> list[int]:
        found = [self._pid]
        for pid in found:
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found


def _status(pid: int, name: str) -> int:
    with suppress(OSError):
        found = re.search(name + r":\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


@contextmanager
def watched(pid: int) -> Iterator[Peak]:
    peak = Peak(pid)
    thread = threading.Thread(target=peak.watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.end()
        thread.join()


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the peak of a process is read from /proc")
def test_large_images_stay_within_the_budget(
    tmp_path: Path, long: bool, photos: dict[str, Path], figures: Callable[..., None]
) -> None:
    # Given a worker with the default budget on two lanes, or a small one with a small budget,
    count, side, pixels, memory = (512, 4472, 10_000, 0) if long else (24, 2000, 4000, 90 * MB)
    folder = tmp_path / "mill"
    folder.mkdir()
    with Mill(folder, 1, memory=memory, threads=LANES, stall_seconds=60).running() as mill:
        store = mill.client.backend.store
        mill.finished(mill.client.classify(photos["espresso"].parent, model=MODEL, shard_size=16).id)
        pid = mill.supervisor.pid("worker-0")
        assert pid is not None
        before = _status(pid, "VmHWM")
        # and hundreds of files, each of which takes as much as it may: a few, listed again and again,
        for n in range(8):
            store.put(f"files/{n}.bmp", bmp(side - n))
        manifest = tmp_path / "files.jsonl"
        uris = [f"s3://{store.bucket}/files/{n % 8}.bmp" for n in range(count)]
        manifest.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
        images = [png(pixels, 16, colour, samples) for colour, samples in ((0, 1), (2, 3), (6, 4))]
        for n in range(count):
            store.put(f"pixels/{n:03d}.png", images[n % 3])
        # if all are labelled at once,
        with watched(pid) as peak:
            jobs = [
                mill.client.classify(manifest, model=MODEL, shard_size=count // 4).id,
                mill.client.classify(f"s3://{store.bucket}/pixels/", model=MODEL, shard_size=count // 4).id,
            ]
            ended = [mill.finished(job, 3000) for job in jobs]
        # I expect a label for each, no exit of the worker, and the memory that was promised.
        codes = sum((Counter(status.error_codes or {}) for status in ended), Counter[str]())
        allowed = SPARE + (2 * GB + LANES * GB // 2 if long else before + memory + 300 * MB)
        figures(
            files=sum(status.ok or 0 for status in ended),
            errors=dict(codes),
            peak_mb=peak.bytes // MB,
            allowed_mb=allowed // MB,
            idle_mb=before // MB,
        )
        assert [status.ok for status in ended] == [count, count]
        assert mill.supervisor.pid("worker-0") == pid
        assert peak.bytes <= allowed
