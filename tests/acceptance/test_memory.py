"""Memory is flat: a worker's does not grow with the number of images, and Redis holds next to nothing of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.backend.ledger import Ledger
from tests.acceptance.conftest import MODEL
from tests.mill import Mill
from tests.waiting import wait_until

FEW, MORE = 1_000, 3_000
CONSTANT = 64 * 2**10  # bytes of a job's books that do not depend on its size


@pytest.fixture
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """One worker on all cores."""
    mill = Mill(tmp_path_factory.mktemp("mill"), workers=1, threads=0)
    with mill.running():
        yield mill


def peak(mill: Mill) -> int:
    """The most memory that the worker ever had, kB."""
    pid = mill.supervisor.pid("worker-0")
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1])


def held(ledger: Ledger) -> int:
    """Bytes of every key in Redis, queue and ledger."""
    sizes = ledger.redis.pipeline(transaction=False)
    for key in ledger.redis.scan_iter(count=1000):
        sizes.memory_usage(key, samples=0)
    return sum(size or 0 for size in sizes.execute())


@pytest.mark.timeout(300)
def test_memory_is_flat(mill: Mill, photo_folder: Callable[[int], Path]) -> None:
    # Given what a worker and Redis need for 1,000 images,
    few, more = photo_folder(FEW), photo_folder(MORE)
    mill.finished(mill.client.classify(few, model=MODEL).id)
    before, empty = peak(mill), held(mill.client.backend.ledger)

    # if it labels 3,000 more in small shards, of which there are many,
    job = mill.client.classify(more, model=MODEL, shard_size=64).id
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, held(mill.client.backend.ledger))
        return mill.client.status(job).ended

    wait_until(ended, 200, "3,000 images")

    # I expect the worker's peak to grow by less than a tenth, and Redis by less than 20 bytes an image.
    assert mill.client.status(job).ok == MORE
    assert peak(mill) < before * 1.10, f"{before:,} kB became {peak(mill):,} kB"
    assert most - empty < 20 * MORE + CONSTANT, f"{(most - empty) / MORE:.1f} bytes an image"
