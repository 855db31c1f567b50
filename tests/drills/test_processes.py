"""Processes and servers that fail in the middle of jobs, at random and past their leases: none lost, none doubled."""

from __future__ import annotations

import hashlib
import io
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from contract.data import image_index
from contract.errors import ServiceUnavailable
from contract.jobs import results
from contract.jobs.ends import read_end
from contract.jobs.lifecycle import read_images
from contract.keys.jobs import JobKeys, parse_run
from tests.drills import matrix
from tests.mill import TIMES, Mill, check_complete
from tests.waiting import wait_until

MODEL = "efficientnet-lite0"
GENERATOR = "fashion-gan"
IMAGES = 96
KEYS = [f"in/{n:04d}.jpg" for n in range(IMAGES)]
MADE = 96


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> Iterator[Mill]:
    """Two of each process, and small photos in the bucket, so that the controllers plan."""
    data = tmp_path_factory.mktemp("mill")
    with Mill(data, workers=2, controllers=2, clocks=2).running() as made:
        small = []
        for path in photos.values():
            with Image.open(path) as photo:
                file = io.BytesIO()
                photo.convert("RGB").resize((64, 64)).save(file, "jpeg")
                small.append(file.getvalue())
        for n, key in enumerate(KEYS):
            made.client.backend.store.put(key, small[n % len(small)])
        yield made


def label(mill: Mill) -> str:
    """Begin to label the photos in the bucket."""
    return mill.client.classify(f"s3://{mill.settings.bucket}/in/", model=MODEL, shard_size=4).id


def generate(mill: Mill) -> str:
    """Begin to generate images; the same each time."""
    return mill.client.generate(GENERATOR, count=MADE, shard_size=8).id


def checked_labels(mill: Mill, job: str) -> None:
    """One row an item, no false error, and every object what its commit says."""
    status = check_complete(mill.client, job, KEYS)
    assert (status.state, status.errors) == ("succeeded", 0), [dict(row) for row in mill.client.errors(job)][:2]
    for _ in results.tables(mill.client.backend.store, job):
        pass  # raises ObjectDamaged


def checked_images(mill: Mill, job: str) -> set[tuple[str, str]]:
    """Every image once, and its bytes in the tar those of its index; return keys and hashes."""
    store = mill.client.backend.store
    found: dict[str, str] = {}
    for commit, table in image_index.shards(store, read_images(store, job)):
        tar = image_index.read_tar(store, commit)
        for row in table.to_pylist():
            assert row["key"] not in found, f"{row['key']} is doubled"
            data = tar[row["offset"] : row["offset"] + row["size"]]
            assert hashlib.sha256(data).hexdigest() == row["sha256"], f"{row['key']} is not what its index says"
            found[row["key"]] = row["sha256"]
    assert len(found) == MADE
    return set(found.items())


def ended_once(mill: Mill, job: str) -> None:
    """One end, which ledger and marks follow."""
    store, keys = mill.client.backend.store, JobKeys(job)
    end = read_end(store, job)
    assert end is not None and end.state == "succeeded", end
    assert not [entry.key for entry in store.list(keys.run_prefix) if parse_run(entry.key)]
    # The marks are written after the end, which a Redis that was wiped meanwhile lets us see first.
    wait_until(lambda: not store.exists(keys.active), 20, "the job to be settled")
    assert store.exists(keys.success) and store.exists(f"{keys.root}out/_SUCCESS")


def finished(mill: Mill, job: str) -> None:
    """Wait for the end, whichever server is away meanwhile."""

    def ended() -> bool:
        with suppress(ServiceUnavailable):
            return mill.client.status(job).ended
        return False

    wait_until(ended, 120, f"{job} to end")


def idle(mill: Mill) -> None:
    """Wait until every worker is there, and none is at work, not even on what it has lost."""

    def quiet() -> bool:
        workers = [w.fields for w in mill.client.workers() if "models" in w.fields]
        return len(workers) == 2 and all(fields.get("shards", "0") == "0" for fields in workers)

    wait_until(quiet, 60, "the workers to be idle")


def stop(
    mill: Mill,
    job: str,
    names: list[str],
    rng: random.Random,
    held: Callable[[], bool],
    lapsed: Callable[[], bool],
) -> bool:
    """Stop all processes of a role past their lease, let one take over and end the job, then let the other go on.

    Return whether one of them held its lease when it was stopped.
    """
    mill.pause(*names)
    caught = held()
    first, late = rng.sample(names, 2)
    try:
        wait_until(lapsed, 10, "the lease to lapse")
        mill.go_on(first)
        finished(mill, job)
    finally:
        mill.go_on(*names)
    wait_until(lambda: mill.supervisor.pid(late) is not None, 20, f"{late} to be there")
    return caught


def stopped(mill: Mill, role: str, rng: random.Random) -> bool:
    """Stop planner, finalizer, generator, or the finalizer of images, in the middle; return whether it was at work."""
    ledger = mill.client.backend.ledger
    job = label(mill) if role in ("planner", "finalizer") else generate(mill)
    if role == "generator":
        leases = ledger.keys.job(job)[2]
        wait_until(lambda: ledger.redis.hlen(leases), 60, "a shard to run")
        caught = stop(mill, job, mill.workers, rng, lambda: bool(ledger.redis.hlen(leases)), past_lease)
    else:
        lock = {"planner": "plan", "finalizer": "finalize", "finisher": "finish"}[role]
        names = mill.workers if role == "finisher" else mill.controllers
        wait_until_now(lambda: ledger.locked(lock, job) or ledger.state(job) in ("succeeded", "failed"))
        caught = stop(mill, job, names, rng, lambda: ledger.locked(lock, job), lambda: not ledger.locked(lock, job))
    idle(mill)
    ended_once(mill, job)
    checked_labels(mill, job) if role in ("planner", "finalizer") else checked_images(mill, job)
    return caught


def past_lease() -> bool:
    """Let a lease lapse, whose deadline is written in it, so that no key disappears."""
    matrix.wait(TIMES["lease_seconds"] + 0.5)
    return True


def wait_until_now(predicate: Callable[[], bool]) -> None:
    """Wait without a pause: a lock may be held for milliseconds."""
    for _ in range(1_000_000):
        if predicate():
            return
    raise AssertionError("it never came")


def test_who_is_stopped_past_the_lease_changes_nothing(mill: Mill, long: bool, figures: Callable[..., None]) -> None:
    rng = random.Random(0)
    roles = ["planner", "finalizer", "generator", "finisher"]
    caught, times = 0, Counter[str]()
    reference = generate(mill)
    mill.finished(reference)
    same = checked_images(mill, reference)
    for role in roles * 25 if long else roles[:3]:
        caught += stopped(mill, role, rng)
        times[role] += 1
        if times.total() % 10 == 0:
            figures(so_far=times.total(), in_the_act=caught)
    figures(**times, in_the_act=caught, images=MADE, items=IMAGES, damaged=0, lost=0, doubled=0)
    again = generate(mill)
    mill.finished(again)
    assert checked_images(mill, again) == same


def test_faults_over_the_whole_matrix(mill: Mill, long: bool, figures: Callable[..., None]) -> None:
    # Given job after job, if processes and servers fail in each, at random,
    draw = matrix.series(1 if long else 6)
    wanted, at_a_time = (500, 8) if long else (6, 3)
    struck: Counter[str] = Counter()
    jobs: list[tuple[str, str]] = []
    while struck.total() < wanted:
        labels, images = label(mill), generate(mill)
        jobs.append((labels, images))
        faults = [draw() for _ in range(min(at_a_time, wanted - struck.total()))]
        faults.sort(key=lambda fault: matrix.MOMENTS.index(fault.when))
        for fault in faults:
            wait_until(partial(matrix.reached, mill, labels, fault.when, IMAGES), 120, fault.when)
            fault.strike(mill)
            struck[fault.what] += 1

        # I expect each job to end with one row an item and no false error, and each image to be as its index says,
        try:
            for job, checked in ((labels, checked_labels), (images, checked_images)):
                finished(mill, job)
                ended_once(mill, job)
                checked(mill, job)
        except AssertionError as error:
            told = "; ".join(map(str, faults))
            raise AssertionError(f"after {struck.total()} faults, the last were {told}: {error}") from error
        if len(jobs) % 10 == 0:
            figures(so_far=struck.total(), jobs=2 * len(jobs))

    # also when everybody has done what it was about to do.
    idle(mill)
    for labels, images in jobs:
        checked_labels(mill, labels)
        checked_images(mill, images)
    items = len(jobs) * (IMAGES + MADE)
    figures(faults=struck.total(), jobs=2 * len(jobs), items=items, lost=0, doubled=0, false_errors=0, **struck)
