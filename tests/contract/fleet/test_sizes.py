"""How large shards become: as many images as take seconds, wherever they run."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from contract.backend.heartbeats import Worker
from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import RedisUnavailable
from contract.fleet.rates import Rates, add_rates, rate_field
from contract.fleet.sizes import LEAST, Next, Sizes, follow, pin, sizes_for
from contract.jobs.numerics import Needs
from contract.jobs.specs import Classify
from contract.keys.jobs import JobKeys
from contract.models.registry import Model
from contract.models.rules import Rule
from contract.records import MOST_IMAGES
from tests.contract.backend.test_ledger import spec_of
from tests.contract.fleet.test_snapshot import beat


def asked(**fields: object) -> Classify:
    return spec_of("a", **{"shard_size": "auto", "model": "m@1", **fields})  # type: ignore[arg-type]


def worker(name: str, device: str = "cpu", *, slots: int = 3, **fields: str) -> Worker:
    told = {"queues": "classify", "slots": str(slots), "device_kind": device, "precisions": "fp32"}
    return Worker(name, {**told, **fields})


def measured(**rates: float) -> Rates:
    return Rates({rate_field("classify", "m@1", device): rate for device, rate in rates.items()})


def decide(workers: list[Worker], rates: Rates = Rates(), needs: Needs = Needs(), **fields: Any) -> tuple[int, int]:  # noqa: B008
    found = sizes_for(workers, rates, asked(), needs, **{"models": (), **fields})
    return found.images, found.slots


def first(next: Next, count: int) -> list[int]:
    sizes, images = [], 0
    for shards in range(count):
        sizes.append(next(shards, images))
        images += sizes[-1]
    return sizes


def test_the_first_shards_are_small() -> None:
    assert first(Sizes(images=512).next, 6) == [64, 128, 256, 512, 512, 512]
    assert first(Sizes(images=100).next, 3) == [64, 100, 100]
    assert first(Sizes(images=16).next, 3) == [16, 16, 16]


def test_a_shard_is_a_small_part_of_what_its_job_has_so_far() -> None:
    # Whatever a shard may hold at most, the last one of a job must not keep one slot busy while the others are idle.
    for slots in (1, 3, 320):
        sizes = Sizes(images=4096, slots=slots)
        images = 0
        for shards, size in enumerate(islice(first(sizes.next, 3000), 3000)):
            assert size <= max(LEAST, images / (2 * slots))
            assert size == sizes.next(shards, images)
            images += size
    assert first(Sizes(images=4096, slots=1).next, 6) == [64, 128, 256, 256, 352, 528]
    assert Sizes(images=4096, slots=1).next(10**6, 10**8) == 4096


@pytest.mark.parametrize(
    ("rate", "images"),
    [(1, 256), (25, 256), (50, 512), (70, 512), (75, 1024), (110, 1024), (200, 2048), (300, 4096), (34_000, 4096)],
)
def test_a_shard_takes_seconds_within_its_bounds(rate: float, images: int) -> None:
    assert decide([worker("a")], measured(cpu=rate)) == (images, 3)
    if images not in (LEAST, MOST_IMAGES):
        assert 5 <= images / rate <= 20


def test_the_slowest_live_worker_counts_and_those_that_cannot_run_the_job_do_not() -> None:
    rates = measured(cpu=30, cuda=200)
    fast, slow = worker("gpu", "cuda", slots=17), worker("cpu")
    assert decide([fast, slow], rates) == (256, 20)
    assert decide([fast], rates) == (2048, 17)
    # A worker that leaves, is unfit, serves another queue, or may not run the job.
    for field, value in (("draining", "1"), ("unfit", "its bf16 is wrong"), ("queues", "train"), ("device_kind", "")):
        assert decide([fast, Worker("cpu", {**slow.fields, field: value})], rates) == (2048, 17), field
    assert decide([fast, slow], rates, Needs(device="cuda")) == (2048, 17)
    model = Model.model_construct(name="m", version=1)  # type: ignore[call-arg]
    other = worker("cpu", rule=Rule(models=("other",)).model_dump_json())
    assert decide([fast, other], rates, models=(model,)) == (2048, 17)


def test_without_a_worker_or_a_rate_a_shard_is_as_large_as_it_always_was() -> None:
    assert decide([]) == (512, 8)
    assert decide([worker("a")]) == (512, 3)
    assert decide([worker("a", "cuda")]) == (512, 3)
    # What was measured counts while a fleet is scaled to nothing, by the slowest device that ran the model.
    assert decide([], measured(cuda=200))[0] == 2048
    assert decide([], measured(cuda=200, cpu=20))[0] == 256
    assert decide([], Rates({"classify|m@10|cpu": 1000.0, "evaluate|m@1|cpu": 1000.0}))[0] == 512


def test_a_rate_that_becomes_known_counts_from_the_next_look_on(store: ObjectStore, ledger: Ledger) -> None:
    beat(ledger, "a@h", slots=1)
    following, later = follow(store, ledger, asked(), every=0.0), follow(store, ledger, asked())
    assert following(100, 10**6) == later(100, 10**6) == 512
    add_rates(ledger, [(rate_field("classify", "m@1", "cpu"), 2000, 10.0)])
    assert following(100, 10**6) == 2048
    assert later(100, 10**6) == 512, "the fleet is not read for each shard"


def test_a_number_that_was_asked_for_asks_nobody(
    store: ObjectStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "workers", lambda: pytest.fail("asked"))
    for made in (follow, pin):
        assert first(made(store, ledger, asked(shard_size=200)), 4) == [64, 128, 200, 200]
    assert not store.exists(JobKeys("a").sizes)


def test_who_packs_decides_once(store: ObjectStore, ledger: Ledger) -> None:
    # Given a job that somebody packs, if the fleet is another by now, I expect whoever goes on to cut alike.
    beat(ledger, "a@h", slots=1)
    sizes = first(pin(store, ledger, asked()), 20)
    assert max(sizes) == 512
    add_rates(ledger, [(rate_field("classify", "m@1", "cpu"), 2000, 10.0)])
    beat(ledger, "b@h", slots=8)
    assert first(pin(store, ledger, asked()), 20) == sizes
    ledger.redis.flushdb()
    assert first(pin(store, ledger, asked()), 20) == sizes


def test_two_that_pack_at_once_cut_alike(store: ObjectStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a second packer that decides between the first one's look and its write,
    other = Sizes(images=1024, slots=2)
    put = store.put_if_absent

    def overtaken(key: str, data: bytes) -> bool:
        put(key, other.to_json())
        return put(key, data)

    monkeypatch.setattr(store, "put_if_absent", overtaken)
    assert first(pin(store, ledger, asked()), 20) == first(other.next, 20)


def test_packing_needs_no_redis(store: ObjectStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> list[Worker]:
        raise RedisUnavailable("away")

    monkeypatch.setattr(ledger, "workers", away)
    assert max(first(pin(store, ledger, asked()), 50)) == 512
