"""A closed segment becomes few files of one partitioned table: the same rows, whatever dies, and read by others."""

from __future__ import annotations

import hashlib
import io
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from contract.backend.objects import ObjectStore
from contract.errors import ObjectDamaged
from contract.jobs.results import rows as job_rows
from contract.jobs.status import ShardCommit
from contract.keys.jobs import JobKeys
from contract.keys.shards import shard_stem
from tests.interleaved import KilledError, killed_at
from worker.control.watching.table import TableSegment, compact, read_manifest

MANIFEST = "tables/camera/_segments/000000.json"
BEGIN = datetime(2026, 11, 25, 22, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        *(("key", pa.string()), ("status", pa.string()), ("score", pa.float32())),
        *(("event_time", pa.timestamp("ms", "UTC")), ("embedding", pa.list_(pa.float32()))),
    ]
)


def row(number: int, at: datetime | None, width: int = 4) -> dict[str, Any]:
    return {
        "key": f"in/{number:06d}.jpg",
        "status": "error" if number % 10 == 0 else "ok",
        "score": number / 8,
        "event_time": at,
        "embedding": [float(number)] * width,
    }


def commit(
    store: ObjectStore,
    job: str,
    shard: int,
    rows: list[dict[str, Any]],
    retry: int = 0,
    *,
    columns: pa.Schema = SCHEMA,
) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, columns), sink)
    data, key = sink.getvalue(), f"jobs/{job}/out/{shard_stem(shard, retry)}.parquet"
    store.put(key, data)
    errors = sum(row["status"] == "error" for row in rows)
    done = ShardCommit(
        shard=shard,
        retry=retry,
        items=len(rows),
        ok=len(rows) - errors,
        errors=errors,
        output=f"s3://{store.bucket}/{key}",
        sha256=hashlib.sha256(data).hexdigest(),
    )
    store.put(JobKeys(job).commit(shard, retry), done.to_json())


def labelled(
    store: ObjectStore, job: str, shards: int = 12, size: int = 50, hours: float = 4.0
) -> list[dict[str, Any]]:
    """Commit the shards of a segment, whose objects came over some hours, nearly in order; return their rows."""
    chance, made = random.Random(job), []
    for shard in range(shards):
        rows = []
        for number in range(shard * size, (shard + 1) * size):
            at = BEGIN + timedelta(hours=hours * number / shards / size, milliseconds=chance.randrange(1000))
            rows.append(row(number, at.replace(microsecond=at.microsecond // 1000 * 1000)))
        commit(store, job, shard, rows)
        made += rows
    return made


def table_of(store: ObjectStore) -> str:
    return f"s3://{store.bucket}/tables/camera/"


def copied(store: ObjectStore, folder: Path) -> Path:
    """The table as a folder of this machine."""
    for entry in store.list("tables/camera/"):
        path = folder / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(entry.key))
    return folder / "tables" / "camera"


def read(folder: Path) -> list[dict[str, Any]]:
    found = ds.dataset(folder, format="parquet", partitioning="hive").to_table().to_pylist()
    assert all(
        (one.pop("dt"), int(one.pop("hour"))) == (one["event_time"].date().isoformat(), one["event_time"].hour)
        for one in found
    )
    return found


def counted(rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> Counter[str]:
    return Counter(repr(sorted({**row, "event_time": row["event_time"].timestamp()}.items())) for row in rows)


def test_a_segment_is_the_same_rows_in_few_files(store: ObjectStore, tmp_path: Path) -> None:
    # Given a segment of twelve shards, whose objects came in four hours and over midnight
    made = labelled(store, "seg-0")
    # if it is compacted
    manifest = compact(store, table_of(store), 0, "seg-0", 0)
    # I expect a file an hour, at its place, that the manifest names, and the rows of the job, each once
    assert [file.key for file in manifest.files] == [
        f"{place}/part-000000-000.parquet"
        for place in (
            "dt=2026-11-25/hour=22",
            "dt=2026-11-25/hour=23",
            "dt=2026-11-26/hour=00",
            "dt=2026-11-26/hour=01",
        )
    ]
    assert manifest.rows == sum(file.rows for file in manifest.files) == len(made)
    for file in manifest.files:
        data = store.get(f"tables/camera/{file.key}")
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.bytes, file.sha256)
    assert counted(read(copied(store, tmp_path))) == counted(job_rows(store, "seg-0")) == counted(made)
    assert read_manifest(store, table_of(store), 0) == manifest


def test_large_segments_become_files_of_a_size(store: ObjectStore, tmp_path: Path, monkeypatch: Any) -> None:
    # Given row groups and files that are small, for this test
    monkeypatch.setattr("worker.control.watching.table._GROUP_BYTES", 2_000)
    made = labelled(store, "seg-0", shards=60, hours=0.5)
    manifest = compact(store, table_of(store), 0, "seg-0", 0, file_bytes=20_000)
    # I expect several files, none much larger than was asked for, and only the last one smaller
    assert len(manifest.files) > 2
    assert all(20_000 <= file.bytes < 40_000 for file in manifest.files[:-1])
    assert counted(read(copied(store, tmp_path))) == counted(made)


def test_segments_are_one_table(store: ObjectStore, tmp_path: Path) -> None:
    made = [*labelled(store, "seg-0"), *labelled(store, "seg-1", hours=1)]
    for number in (0, 1, 1):
        compact(store, table_of(store), number, f"seg-{number}", 0)
    assert counted(read(copied(store, tmp_path))) == counted(made)


def test_an_empty_segment_has_a_manifest_without_files(store: ObjectStore) -> None:
    assert compact(store, table_of(store), 3, "seg-3", 0) == TableSegment(
        segment=3, job="seg-3", run=0, rows=0, files=()
    )


def test_rows_without_a_time_are_in_hives_own_partition(store: ObjectStore) -> None:
    commit(store, "seg-0", 0, [row(1, None), row(2, BEGIN)])
    manifest = compact(store, table_of(store), 0, "seg-0", 0)
    null = "__HIVE_DEFAULT_PARTITION__"
    assert [file.key.rpartition("/")[0] for file in manifest.files] == [
        "dt=2026-11-25/hour=22",
        f"dt={null}/hour={null}",
    ]


def test_rows_of_a_retry_take_the_place_of_earlier_ones(store: ObjectStore, tmp_path: Path) -> None:
    # Given a segment that was compacted, in more files than it will need
    made = labelled(store, "seg-0", shards=2, hours=1)
    compact(store, table_of(store), 0, "seg-0", 0, file_bytes=1)
    store.put("tables/camera/dt=2026-11-25/hour=22/part-000000-001.parquet", b"of an attempt that was killed")
    neighbour = "tables/camera/dt=2026-11-25/hour=22/part-000001-000.parquet"
    store.put(neighbour, b"of another segment")
    # if some of its rows are made again
    again = [{**one, "status": "ok", "score": 1.0} for one in made[50:]]
    commit(store, "seg-0", 1, again, retry=1)
    compact(store, table_of(store), 0, "seg-0", 1)
    # I expect the new rows in place of the old ones, and other segments to be left alone
    assert store.get(neighbour) == b"of another segment"
    store.delete(neighbour)
    assert counted(read(copied(store, tmp_path))) == counted([*made[:50], *again])


def test_killed_anywhere_nothing_is_lost_or_doubled(store: ObjectStore, tmp_path: Path) -> None:
    # Given a segment with four files, and a process that dies before each object that it writes
    made = labelled(store, "seg-0")
    for step in range(1, 6):
        with pytest.raises(KilledError):
            compact(store, table_of(store), 0, "seg-0", 0, check=killed_at(step))
        # I expect no manifest, and the rows of the job to be untouched
        assert not store.exists(MANIFEST)
        assert counted(job_rows(store, "seg-0")) == counted(made)
    # and the next one to complete it
    compact(store, table_of(store), 0, "seg-0", 0)
    assert counted(read(copied(store, tmp_path))) == counted(made)


def test_rows_that_do_not_match_their_commit_are_not_copied(store: ObjectStore) -> None:
    labelled(store, "seg-0", shards=2)
    store.put("jobs/seg-0/out/shard-000001.parquet", b"damaged")
    with pytest.raises(ObjectDamaged, match="not what was committed"):
        compact(store, table_of(store), 0, "seg-0", 0)
    assert not store.exists(MANIFEST)


def test_a_manifest_that_is_none_is_refused(store: ObjectStore) -> None:
    store.put(MANIFEST, b"{}")
    with pytest.raises(ObjectDamaged, match="no manifest of a table"):
        compact(store, table_of(store), 0, "seg-0", 0)


def test_pandas_reads_it(store: ObjectStore, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    made = labelled(store, "seg-0")
    compact(store, table_of(store), 0, "seg-0", 0)
    frame = pandas.read_parquet(copied(store, tmp_path), filters=[("hour", "=", 23)])
    assert len(frame) == sum(one["event_time"].hour == 23 for one in made)
    assert set(frame["dt"].astype(str)) == {"2026-11-25"}


def test_duckdb_reads_it(store: ObjectStore, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    made = labelled(store, "seg-0")
    compact(store, table_of(store), 0, "seg-0", 0)
    folder = copied(store, tmp_path)
    query = f"select hour, count(*) from read_parquet('{folder}/**/*.parquet', hive_partitioning = true) group by hour"
    found = {int(hour): count for hour, count in duckdb.sql(query).fetchall()}
    assert found == Counter(one["event_time"].hour for one in made)
