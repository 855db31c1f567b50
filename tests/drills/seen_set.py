"""A controller's seen-set, as a process of its own whose memory and time are measured.

Run as `python -m tests.drills.seen_set --keys N`, with the addresses of the servers in the environment: with `--fill`
it closes segments of 100,000 images and compacts them, without it it loads what is there and asks for each hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator

import worker.control.finalize  # noqa: F401  what a controller has in memory anyway
from contract.backend.objects import ObjectStore
from contract.settings import Settings
from contract.watches.seen import SeenSet
from tests.drills.peak import peak_mb

SEGMENT = 100_000
PREFIX = "watches/drill/seen/"


def hashes(first: int, last: int) -> list[bytes]:
    return [hashlib.blake2b(b"%d" % number, digest_size=16).digest() for number in range(first, last)]


def batches(keys: int, size: int = 1000) -> Iterator[list[bytes]]:
    """As a full sweep asks: a page of a listing at a time."""
    for first in range(0, keys, size):
        yield hashes(first, min(first + size, keys))


def fill(seen: SeenSet, keys: int) -> dict[str, float]:
    compacting = longest = 0.0
    for segment in range(keys // SEGMENT):
        seen.close_segment(segment, hashes(segment * SEGMENT, (segment + 1) * SEGMENT))
        began = time.monotonic()
        while seen.compact():
            pass
        took = time.monotonic() - began
        compacting, longest = compacting + took, max(longest, took)
    return {"compacting_seconds": round(compacting, 1), "longest_seconds": round(longest, 1)}


def load(seen: SeenSet, keys: int) -> dict[str, float]:
    began = time.monotonic()
    missing = seen.load(keys // SEGMENT)
    loading = time.monotonic() - began
    asking, fresh = 0.0, 0
    for batch in batches(keys + SEGMENT):
        since = time.process_time()
        fresh += len(seen.unseen(batch))
        asking += time.process_time() - since
    assert missing == [] and fresh == SEGMENT
    return {"load_seconds": round(loading, 2), "cpu_us_a_question": round(1e6 * asking / (keys + SEGMENT), 2)}


def main(keys: int, filling: bool) -> None:
    store = ObjectStore(Settings(), patience=60)
    seen = SeenSet(store, PREFIX)
    before = peak_mb()
    told = fill(seen, keys) if filling else load(seen, keys)
    runs = len(list(store.list(PREFIX)))
    numpy = "numpy" in sys.modules
    print(json.dumps({**told, "runs": runs, "before_mb": before, "peak_mb": peak_mb(), "numpy": numpy}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--fill", action="store_true")
    given = parser.parse_args()
    main(given.keys, given.fill)
