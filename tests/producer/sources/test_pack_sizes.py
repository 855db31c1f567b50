"""A producer that packs decides once how large its shards become, so that it can be called again."""

from __future__ import annotations

from pathlib import Path

from contract.data.items import read_manifest
from contract.fleet.rates import add_rates, rate_field
from contract.jobs.lifecycle import Backend, read_plan, submit
from contract.keys.jobs import JobKeys
from producer.sources import images
from producer.sources.images import Packed
from producer.sources.pack import pack
from tests.contract.fleet.test_snapshot import beat
from tests.producer.fakes import spec

KEYS = JobKeys("job")


def test_a_second_call_cuts_as_the_first_did_whatever_the_fleet_is_by_then(backend: Backend, tmp_path: Path) -> None:
    # Given a folder that a fast worker was to label, whose packing ended early,
    asked = spec("auto").model_copy(update={"output": f"s3://{backend.store.bucket}/jobs/job/out/"})
    for n in range(2000):
        (tmp_path / f"{n:04}.jpg").write_bytes(b"x")
    found = images.resolve(str(tmp_path), backend.store)
    assert isinstance(found, Packed)
    beat(backend.ledger, "a@h", slots=1)
    add_rates(backend.ledger, [(rate_field("classify", asked.model, "cpu"), 2000, 10.0)])
    submit(backend, asked)
    pack(backend, asked, found, max_bytes=100)
    done = read_plan(backend.store, "job")
    assert done is not None
    tars = [backend.store.get(KEYS.tar(shard)) for shard in range(done.shards)]
    for key in (KEYS.plan, KEYS.manifest(done.shards - 1)):
        backend.store.delete(key)

    # if it is packed again while there are many slow ones, or no Redis knows any, I expect the same shards.
    for _ in range(2):
        backend.ledger.redis.flushdb()
        submit(backend, asked)
        for name in ("b@h", "c@h"):
            beat(backend.ledger, name, slots=8)
        pack(backend, asked, found, max_bytes=100)
        assert read_plan(backend.store, "job") == done
        assert [backend.store.get(KEYS.tar(shard)) for shard in range(done.shards)] == tars
        backend.store.delete(KEYS.plan)
    sizes = [len(read_manifest(backend.store.get(KEYS.manifest(shard)))) for shard in range(done.shards)]
    assert sizes == [64, 128, 256, 256, 352, 528, 416]
