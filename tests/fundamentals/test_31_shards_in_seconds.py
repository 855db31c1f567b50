"""Shards are sized in seconds: small ones first, so that labelling begins at once, then by what the workers do."""

from __future__ import annotations

import io
import tarfile

import pytest
from PIL import Image

from contract.backend.objects import ObjectStore
from contract.data.items import read_manifest
from contract.jobs.lifecycle import read_plan
from contract.keys.jobs import JobKeys
from producer import Client
from tests.fundamentals.conftest import MODEL, Rows
from tests.mill import Mill
from tests.waiting import wait_until

IMAGES = 1000


@pytest.fixture(scope="module")
def tiny(camera: ObjectStore) -> str:
    """A tar of 1,000 images of a few bytes."""
    image, data = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(image, "PNG")
    with tarfile.open(fileobj=data, mode="w") as tar:
        for n in range(IMAGES):
            member = tarfile.TarInfo(f"{n:04}.png")
            member.size = len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))
    camera.put("tiny/all.tar", data.getvalue())
    return "s3://camera/tiny/all.tar"


def sizes(client: Client, job: str) -> list[int]:
    store, plan = client.backend.store, read_plan(client.backend.store, job)
    assert plan is not None
    return [len(read_manifest(store.get(JobKeys(job).manifest(shard)))) for shard in range(plan.shards)]


def test_nobody_need_say_how_large_a_shard_is(mill: Mill, client: Client, rows: Rows, tiny: str) -> None:
    # If I label many images and say nothing of shards,
    job = client.classify(tiny, model=MODEL).id
    wait_until(lambda: read_plan(client.backend.store, job) is not None, 30, "the plan")

    # I expect small ones first, and none that is much of what came before it,
    planned = sizes(client, job)
    assert planned[:3] == [64, 128, 256]
    assert sum(planned) == IMAGES
    assert all(size <= max(256, sum(planned[:n]) / 2) for n, size in enumerate(planned))

    # and the same ones, each image once, if Redis is wiped in the middle.
    wait_until(lambda: client.status(job).shards.done > 0, 60, "the first shard")
    client.backend.ledger.redis.flushall()
    list(client.rebuild([job]))
    done = mill.finished(job)
    assert (done.state, done.ok) == ("succeeded", IMAGES)
    assert sizes(client, job) == planned
    assert len(rows(done)) == IMAGES


def test_a_number_still_counts(mill: Mill, client: Client, tiny: str) -> None:
    with mill.paused("worker-0"):
        job = client.classify(tiny, model=MODEL, shard_size=200).id
        wait_until(lambda: read_plan(client.backend.store, job) is not None, 30, "the plan")
        assert sizes(client, job) == [64, 128, 200, 200, 200, 200, 8]
        client.cancel(job)
