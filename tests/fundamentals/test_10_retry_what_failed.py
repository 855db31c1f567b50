"""Failed images can be tried again, and nothing but those."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import JobConflict
from contract.jobs.status import Status
from producer import Client
from tests.fundamentals.conftest import MODEL, Label, Rows
from tests.gate import Gate
from tests.mill import Mill


def parquet_files(client: Client, job: Status) -> dict[str, bytes]:
    """What whoever reads `out/*.parquet` gets."""
    bucket, prefix = parse_s3(job.output)
    store = client.backend.store
    found = [entry.key for entry in store.list(prefix, bucket=bucket) if entry.key.endswith(".parquet")]
    return {key.removeprefix(prefix): store.get(key, bucket=bucket) for key in found}


def test_repair_an_object_and_retry(
    client: Client, mill: Mill, label: Label, rows: Rows, camera: ObjectStore, photos: dict[str, Path]
) -> None:
    # Given a job of three shards, with two broken objects in the first two,
    names = ["alpaca", "camels", "cheetah", "crab", "dam", "koala"]
    for name in names:
        camera.put(f"retried/{name}.jpg", photos[name].read_bytes())
    camera.put("retried/camels.jpg", b"broken")
    camera.put("retried/crab.jpg", b"broken as well")
    first = label("s3://camera/retried/", shard_size=2)
    before, files = rows(first), parquet_files(client, first)
    assert (first.state, first.ok, first.errors) == ("succeeded", 4, 2)

    # if I repair one, delete the other, and retry,
    camera.put("retried/camels.jpg", photos["camels"].read_bytes())
    camera.delete("retried/crab.jpg")
    client.retry(first.id)
    second = mill.finished(first.id)

    # I expect the repaired one to have its label, the other the code of what is wrong with it now,
    after = rows(second)
    assert (second.state, second.ok, second.errors) == ("succeeded", 5, 1)
    assert after["retried/camels.jpg"]["label"] == "Arabian camel"
    assert after["retried/crab.jpg"]["error_code"] == "not_found"
    assert second.error_codes == {"not_found": 1}

    # all other rows to be what they were, to the byte where their shard was whole,
    repaired = {"retried/camels.jpg", "retried/crab.jpg"}
    assert {key: row for key, row in after.items() if key not in repaired} == {
        key: row for key, row in before.items() if key not in repaired
    }
    files_after = parquet_files(client, second)
    assert files_after["shard-000002.parquet"] == files["shard-000002.parquet"]

    # and the Parquet files together to hold each row once.
    tables = [pq.read_table(io.BytesIO(data)) for data in files_after.values()]
    keys = [key for table in tables for key in table["key"].to_pylist()]
    assert sorted(keys) == sorted(after)

    # Once more, with all repaired: now nothing fails, and nothing is left to retry.
    camera.put("retried/crab.jpg", photos["crab"].read_bytes())
    client.retry(first.id)
    third = mill.finished(first.id)
    assert (third.ok, third.errors, rows(third)["retried/crab.jpg"]["label"]) == (6, 0, "rock crab")
    assert len(parquet_files(client, third)) == 3
    with pytest.raises(JobConflict, match=r"No image of .* failed"):
        client.retry(first.id)


def test_an_object_that_vanished_since_is_an_error_row_like_any_other(
    client: Client, mill: Mill, label: Label, rows: Rows, camera: ObjectStore
) -> None:
    camera.put("vanished/a.jpg", b"broken")
    job = label("s3://camera/vanished/").id
    camera.delete("vanished/a.jpg")

    client.retry(job)

    assert rows(mill.finished(job))["vanished/a.jpg"]["error_code"] == "not_found"


def test_a_job_that_runs_is_not_retried(client: Client, gate: Gate, tmp_path: Path) -> None:
    job = client.classify(gate.manifest(tmp_path / "held.jsonl", 4, free=0), model=MODEL).id

    with pytest.raises(JobConflict, match="has not ended; follow it to its end, or cancel it, then retry"):
        client.retry(job)

    client.cancel(job)
