"""Images that are small in the bucket and huge in memory wait for one another; none fails that would fit alone."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import Item
from contract.web.addresses import AddressPolicy
from contract.web.client import WebClient
from tests.sites import LOOPBACK, send, site
from tests.waiting import wait_until
from worker.engine.budget import Budget, set_total
from worker.sources.fetch import Fetcher

MIB = 2**20
ROOT = Path(__file__).parents[2]


def png(side: int, depth: int, colour: int, samples: int) -> bytes:
    """A black PNG: 194 kB at 16 bits and 100 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + side * samples * depth // 8)
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def small() -> Iterator[Budget]:
    """A process with 3 MiB for images: one for files, two for pixels."""
    yield set_total(3 * MIB)
    set_total(0)


def taken(fetcher: Fetcher, items: list[Item], batch: int) -> dict[int, object]:
    """Read items as a shard does: in batches, which are decoded when one is full, or when memory has run out."""
    found: dict[int, object] = {}
    held = []
    with closing(fetcher.read_any(items)) as arrivals:
        for arrived in arrivals:
            if not isinstance(arrived, str):
                found[arrived[0]] = arrived[1]
                held.append(arrived[2])
            if isinstance(arrived, str) or len(held) == batch:
                while held:
                    held.pop().release()
    for memory in held:
        memory.release()
    return found


def test_files_larger_than_the_budget_are_fetched_one_after_the_other(store: ObjectStore, small: Budget) -> None:
    # Given files that together are thirty times the budget, some larger than all of it, with and without a known size,
    sizes = [400_000, 3_000_000, 10_000, 900_000, 2_200_000] * 6
    for n, size in enumerate(sizes):
        store.put(f"in/{n}", bytes([n]) * size)
    items = [Item(str(n), f"s3://{store.bucket}/in/{n}", size=size if n % 2 else None) for n, size in enumerate(sizes)]
    # if a shard reads them in batches that would never fit, I expect each to come whole,
    with closing(Fetcher(store, 4 * MIB, threads=4)) as fetcher:
        found = taken(fetcher, items, batch=32)
    assert found == {n: bytes([n]) * size for n, size in enumerate(sizes)}
    # at most one of those that exceed the budget at a time, and nothing left behind.
    assert small.encoded.peak <= 2 * max(sizes) + MIB
    assert small.encoded.held == 0 and not small.busy


def test_a_sequence_larger_than_the_budget_is_fetched_alone(store: ObjectStore, small: Budget) -> None:
    files = [Item(f"{n}", f"s3://{store.bucket}/in/{n}", size=300_000) for n in range(24)]
    for n, file in enumerate(files):
        store.put(f"in/{n}", bytes([n]) * (file.size or 0))
    items = [Item.of_frames(str(n), "m", tuple(files[n : n + 8]), length=8) for n in range(0, 24, 8)]
    with closing(Fetcher(store, MIB, threads=4)) as fetcher:
        found = taken(fetcher, items, batch=32)
        in_order = [encoded for _, encoded in fetcher.read(items)]
    assert [found[n] for n in range(3)] == in_order
    assert [len(frames) for frames in in_order if isinstance(frames, tuple)] == [8, 8, 8]
    assert small.encoded.held == 0 and not small.busy


def test_a_site_that_tells_no_size_gets_no_more_room_for_it(store: ObjectStore, small: Budget) -> None:
    # Given a site whose answers are larger than expected, half of them without a length,
    def answer(request: object) -> None:
        number = int(request.path[1:])  # type: ignore[attr-defined]
        body = bytes([number]) * 1_500_000
        if number % 2:
            send(request, 200, body)  # type: ignore[arg-type]
            return
        request.protocol_version = "HTTP/1.0"  # type: ignore[attr-defined]
        request.send_response(200)  # type: ignore[attr-defined]
        request.send_header("Connection", "close")  # type: ignore[attr-defined]
        request.end_headers()  # type: ignore[attr-defined]
        request.wfile.write(body)  # type: ignore[attr-defined]
        request.close_connection = True  # type: ignore[attr-defined]

    web = WebClient(AddressPolicy(LOOPBACK, "1-65535"), seconds=20)
    with site(answer) as port, closing(Fetcher(store, 2 * MIB, threads=4, web=web)) as fetcher:
        items = [Item(str(n), f"http://{LOOPBACK}:{port}/{n}") for n in range(12)]
        # if they are read, I expect all of them, one after the other.
        assert taken(fetcher, items, batch=32) == {n: bytes([n]) * 1_500_000 for n in range(12)}
    assert small.encoded.peak <= 2 * 2 * MIB
    assert small.encoded.held == 0 and not small.busy


def test_a_reader_that_leaves_gives_everything_back(store: ObjectStore, small: Budget) -> None:
    for n in range(8):
        store.put(f"in/{n}", bytes(100_000))
    items = [Item(str(n), f"s3://{store.bucket}/in/{n}", size=100_000) for n in range(8)]
    with closing(Fetcher(store, MIB, threads=2)) as fetcher:
        with closing(fetcher.read_any(items)) as arrivals:
            first = next(one for one in arrivals if not isinstance(one, str))
        first[2].release()
        wait_until(lambda: not small.encoded.held, 20, "the requests under way to end")
    assert not small.busy


PEAK = """
import re, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from worker.engine.budget import set_total
from worker.engine.images import decode

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

budget = set_total(int(sys.argv[1]))
files = [Path(name).read_bytes() for name in sys.argv[2:]]
with ThreadPoolExecutor(8) as lanes:
    def one(data):
        decode.decode(data, 64, crop=0.875, interpolation="bicubic", max_pixels=10**8)
    before = memory("VmRSS")
    list(lanes.map(one, files * 2))
print(memory("VmHWM") - before, budget.pixels.peak, budget.pixels.held)
"""


def peak(total: int, *files: Path) -> tuple[int, int, int]:
    """Decode each file twice on eight threads, in a process with a budget of `total` bytes.

    Return the bytes by which its memory grew at most, the most that it had reserved, and what was not given back.
    """
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(total), *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    grew, reserved, left = map(int, done.stdout.split())
    return grew, reserved, left


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_pixels_are_decoded_within_the_budget(tmp_path: Path) -> None:
    # Given PNGs of 16 megapixels in 16 bits, gray, in colour and with alpha, of 32 to 64 MB each when decoded,
    files = []
    for name, colour, samples in (("gray", 0, 1), ("colour", 2, 3), ("alpha", 6, 4)):
        files.append(tmp_path / f"{name}.png")
        files[-1].write_bytes(png(4000, 16, colour, samples))
    # if eight threads decode them with 160 MB for pixels, I expect that to be kept to, and none to fail.
    grew, reserved, left = peak(240_000_000, *files)
    assert reserved <= 160_000_000 and left == 0
    assert grew < 160_000_000 + 32 * MIB
    # With less than any of them needs, I expect them to be decoded one by one.
    grew, reserved, left = peak(MIB, *files)
    assert reserved < 100_000_000 and left == 0
    assert grew < 100_000_000 + 32 * MIB
