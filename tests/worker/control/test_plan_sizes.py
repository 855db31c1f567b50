"""Shards are sized in seconds, and a plan is what the bucket holds: whoever goes on changes nothing that is planned."""

from __future__ import annotations

import json

import pytest

from contract.backend.ledger import Ledger
from contract.data.items import read_manifest
from contract.errors import StoreUnavailable
from contract.fleet.rates import add_rates, rate_field
from contract.fleet.sizes import Sizes
from contract.jobs.lifecycle import Backend, read_plan, rebuild, submit
from contract.jobs.specs import Classify, Source
from contract.keys.jobs import JobKeys
from tests.contract.fleet.test_snapshot import beat
from worker.control.plan import plan

KEYS = JobKeys("job")
ROWS = 6000


def measure(ledger: Ledger, images_per_second: float) -> None:
    """Have a slot of a CPU label so many images a second from now on."""
    ledger.redis.delete(ledger.keys.rates)
    add_rates(ledger, [(rate_field("classify", "m@1", "cpu"), int(100 * images_per_second), 100.0)])


@pytest.fixture(autouse=True)
def always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.fleet.sizes.follow.__kwdefaults__", {"every": 0.0})


@pytest.fixture
def begun(backend: Backend) -> Backend:
    """A job of 6,000 rows, and a worker with one slot that labels 200 images a second."""
    bucket = backend.store.bucket
    lines = (json.dumps({"uri": f"s3://{bucket}/in/{n}.jpg"}) for n in range(ROWS))
    backend.store.put("rows.jsonl", "\n".join(lines).encode())
    uri = f"s3://{bucket}/rows.jsonl"
    spec = Classify(
        id="job",
        source=Source(kind="manifest", uri=uri, label=uri),
        model="m@1",
        weights_sha256="0" * 64,
        output=f"s3://{bucket}/out/",
    )
    assert spec.shard_size == "auto"
    beat(backend.ledger, "a@h", slots=1)
    measure(backend.ledger, 200)
    submit(backend, spec)
    return backend


def sizes(backend: Backend) -> list[int]:
    """Return the sizes of the shards that are planned, after looking at their rows: each once, in order."""
    shards: list[list[str]] = []
    while backend.store.exists(key := KEYS.manifest(len(shards))) and (data := backend.store.get(key)):
        shards.append([item.key for item in read_manifest(data)])
    keys = [key for shard in shards for key in shard]
    assert keys == [f"in/{n}.jpg" for n in range(len(keys))]
    return [len(shard) for shard in shards]


def die_over(backend: Backend, monkeypatch: pytest.MonkeyPatch, shard: int) -> None:
    put = backend.store.put_if_absent

    def write(key: str, data: bytes) -> bool:
        if key == KEYS.manifest(shard):
            raise StoreUnavailable("away")
        return put(key, data)

    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "put_if_absent", write)
        with pytest.raises(StoreUnavailable):
            plan(backend, "job")


def test_shards_grow_to_seconds_of_the_slowest_worker(begun: Backend) -> None:
    plan(begun, "job")
    found = sizes(begun)
    assert found == [64, 128, 256, 256, 352, 528, 792, 1188, 1782, 654]
    assert max(found) <= Sizes(images=2048, slots=1).images
    status = begun.ledger.status("job")
    assert status is not None and (status.total, status.shards.total) == (ROWS, len(found))


@pytest.mark.parametrize("loses_redis", [False, True])
def test_a_planner_goes_on_behind_what_another_planned_whatever_it_would_have_planned(
    begun: Backend, monkeypatch: pytest.MonkeyPatch, loses_redis: bool
) -> None:
    # Given a planner that died, if the worker turns out to be slow, or all that Redis knew is lost,
    die_over(begun, monkeypatch, 6)
    before = sizes(begun)
    assert before == [64, 128, 256, 256, 352, 528]
    if loses_redis:
        begun.ledger.redis.flushdb()
        rebuild(begun, "job")
    else:
        measure(begun.ledger, 5)
    plan(begun, "job")

    # I expect the shards that are there to stay, and the others to be smaller,
    found = sizes(begun)
    assert found[:6] == before
    assert max(found[6:]) <= (512 if loses_redis else 256)
    assert sum(found) == ROWS
    status = begun.ledger.status("job")
    assert status is not None and (status.total, status.shards.total) == (ROWS, len(found))

    # and the same plan after Redis is lost once more.
    done = read_plan(begun.store, "job")
    begun.ledger.redis.flushdb()
    rebuild(begun, "job")
    plan(begun, "job")
    assert (sizes(begun), read_plan(begun.store, "job")) == (found, done)
    again = begun.ledger.status("job")
    assert again is not None and (again.total, again.shards.total) == (ROWS, len(found))


def test_two_planners_that_cut_otherwise_make_one_plan(begun: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given planners of which each stops before a write, while the next plans all by another rate,
    put, depth = begun.store.put_if_absent, 0

    def write(key: str, data: bytes) -> bool:
        nonlocal depth
        if key == KEYS.manifest(4 + depth) and depth < 3:
            depth += 1
            measure(begun.ledger, 20 * depth)
            plan(begun, "job")
        return put(key, data)

    monkeypatch.setattr(begun.store, "put_if_absent", write)
    plan(begun, "job")

    # I expect each row once.
    assert depth == 3
    found, done = sizes(begun), read_plan(begun.store, "job")
    assert sum(found) == ROWS
    assert done is not None and (done.shards, done.items) == (len(found), ROWS)


def test_a_rate_that_becomes_known_while_a_job_is_planned_counts(
    begun: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun.ledger.redis.delete(begun.ledger.keys.rates)
    put = begun.store.put_if_absent

    def write(key: str, data: bytes) -> bool:
        if key == KEYS.manifest(8):
            measure(begun.ledger, 300)
        return put(key, data)

    monkeypatch.setattr(begun.store, "put_if_absent", write)
    plan(begun, "job")
    assert sizes(begun) == [64, 128, 256, 256, 352, 512, 512, 512, 512, 1552, 1344]
