"""Poisonous sources while a controller of 512 MB works: each job ends with a reason, and another one is not delayed."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from contract.jobs.ends import read_end
from contract.jobs.lifecycle import Backend, read_plan, read_spec, submit
from contract.jobs.specs import Classify, Reconstruct, Source, Spec
from tests.mill import Mill
from tests.poisons import POISONS, Poison
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"


class Memory:
    """Watches the memory of a process and all that it started; `peak` in bytes, shared pages counted by their share."""

    def __init__(self) -> None:
        self.peak = 0

    @contextmanager
    def of(self, pid: Callable[[], int | None]) -> Iterator[Memory]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                root = pid()
                self.peak = max(self.peak, sum(map(share, family(root)))) if root is not None else self.peak

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            done.set()
            thread.join()


def family(root: int) -> set[int]:
    """The process, its children, theirs, …"""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    found, size = {root}, 0
    while size < len(found):
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def share(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def begin(backend: Backend, id: str, poison: Poison, like: Spec) -> None:
    """Submit a job past the checks of the client, as an attacker would."""
    assert isinstance(like, Classify)
    address = f"s3://{backend.store.bucket}/{poison.name}"
    source, output = Source(kind=poison.kind, uri=address, label=address), f"s3://{backend.store.bucket}/jobs/{id}/out/"
    spec: Spec = like.model_copy(update={"id": id, "source": source, "output": output})
    if poison.labelled:
        spec = Reconstruct(
            id=id, source=source, model="fashion-vae@1", weights_sha256="0" * 64, shard_size=64, output=output
        )
    submit(backend, spec)


def seconds_to_plan(mill: Mill, id: str) -> float:
    """Submit a job of good images, and return how long its plan took."""
    begun = time.monotonic()
    job = mill.client.classify(f"s3://{mill.settings.bucket}/good/", model=MODEL, job=id).id
    wait_until(lambda: read_plan(mill.client.backend.store, job) is not None, 120, "the plan of a good job")
    return time.monotonic() - begun


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not say what a process uses")
def test_poisonous_sources_end_and_delay_nobody(
    tmp_path: Path, photos: dict[str, Path], long: bool, figures: Callable[..., None]
) -> None:
    size = 200 if long else 8
    limits: dict[str, Any] = {"plan_processes": 2, "lease_seconds": 10.0}
    with (
        Mill(tmp_path, workers=1, **limits).running() as mill,
        Memory().of(lambda: mill.supervisor.pid("controller")) as memory,
    ):
        # Given a controller, good images, and the poisonous sources,
        backend, store = mill.client.backend, mill.client.backend.store
        controller = mill.supervisor.pid("controller")
        for n, photo in enumerate(photos.values()):
            store.put(f"good/{n}.jpg", photo.read_bytes())
        for poison in POISONS.values():
            poison.put(store, poison.name, size)
        alone = seconds_to_plan(mill, "alone")
        like = read_spec(store, "alone")

        # if all of them are submitted at once, and good jobs meanwhile,
        begun = time.monotonic()
        jobs = {f"poison-{n}": poison for n, poison in enumerate(POISONS.values())}
        for job, poison in jobs.items():
            begin(backend, job, poison, like)
        delays = [seconds_to_plan(mill, f"good-{n}") - alone for n in range(5 if long else 2)]

        # I expect that each ends with its reason within five minutes, and that the controller is what it was.
        for job in jobs:
            wait_until(lambda job=job: read_end(store, job) is not None, 300, f"{job} to end")  # type: ignore[misc]
        took = time.monotonic() - begun
        for job, poison in jobs.items():
            end = read_end(store, job)
            assert end is not None and end.state == "failed" and end.reason
            assert re.search(poison.says or "images failed", end.reason), end.reason
        for n in range(len(delays)):
            assert mill.finished(f"good-{n}").state == "succeeded"
        assert mill.supervisor.pid("controller") == controller
    figures(
        sources=len(jobs),
        ended=len(jobs),
        seconds=f"{took:.1f}",
        longest_delay=f"{max(delays):.1f} s",
        peak=f"{memory.peak / 2**20:.0f} MB",
        controller_deaths=0,
    )
    # What takes time takes as much as the machine does, but at full length.
    assert not long or (took <= 300 and max(delays) <= 10)
    assert memory.peak <= 512 * 2**20
