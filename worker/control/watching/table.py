"""Turns the rows of a closed segment into few large Parquet files of the watch's table, partitioned by hour.

    <table>dt=2026-11-26/hour=08/part-000042-000.parquet     segment 42; `event_time` decides
    <table>_segments/000042.json                             names the segment's files; written last

The rows of the segment's job stay where they are and are the truth; this is a copy that other tools read as one table.
The names say which segment, and not which attempt, so whoever does it again writes the same files over.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count as count_up
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import ObjectDamaged, ObjectNotFound
from contract.jobs.commits import in_parallel
from contract.jobs.results import tables
from contract.records import Record, Sha256
from contract.watches.tables import segment_manifest
from worker.control.watching.delta import DeltaFile, DeltaLog

FILE_BYTES = 128 * 2**20
_GROUP_BYTES = 32 * 2**20
"""Unpacked bytes of a row group, which is held in memory until it is written."""
_HOUR_MS = 3_600_000
_PART = re.compile(r"/part-(\d{6,})(?:-r\d+)?-\d{3,}\.parquet$")
_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive calls the partition of rows without a value."""
_TIME = "event_time"


class TableFile(Record):
    """A file of a table: its key below the table's prefix."""

    key: str
    rows: int
    bytes: int
    sha256: Sha256


class TableSegment(Record):
    """`_segments/<number>.json` of a table: what one segment of the watch has in it."""

    segment: int
    job: str
    run: int = Field(description="The run of the job whose rows these are; a `retry` begins another.")
    rows: int
    files: tuple[TableFile, ...]

    @classmethod
    def of(cls, segment: int, job: str, run: int, files: Sequence[TableFile]) -> TableSegment:
        """Return the manifest of these files."""
        return cls(segment=segment, job=job, run=run, rows=sum(file.rows for file in files), files=tuple(files))


@dataclass
class _Spill:
    """The rows of a job on the local disk, each batch sorted by hour, and where the rows of each hour are."""

    path: Path
    rows: int = 0
    schema: pa.Schema | None = None
    slices: dict[int | None, list[tuple[int, int, int]]] = field(default_factory=dict)
    """By hour since the epoch: numbers of batches, and in each the first row and the number of rows."""


def read_manifest(store: ObjectStore, table: str, segment: int) -> TableSegment | None:
    """Return what a segment has in a table, or None; raises ObjectDamaged for what this version cannot read."""
    bucket, key = parse_s3(segment_manifest(table, segment))
    try:
        return TableSegment.model_validate_json(store.get(key, bucket=bucket))
    except ObjectNotFound:
        return None
    except ValidationError as error:
        raise ObjectDamaged(f"s3://{bucket}/{key} is no manifest of a table; delete it, to have it written.") from error


def compact(
    store: ObjectStore,
    table: str,
    segment: int,
    job: str,
    run: int,
    *,
    delta: DeltaLog | None = None,
    file_bytes: int = FILE_BYTES,
    check: Callable[[], None] = lambda: None,
) -> TableSegment:
    """Write the rows of a segment's job to the table at the s3:// prefix `table`; return its manifest.

    With `delta` its files are committed to the Delta log there first.
    It is safe to do twice, at once too, and to be killed anywhere. `check` is called before each object is written.
    Raises ObjectDamaged if rows do not match their commits, and what the store raises.
    """
    if (found := read_manifest(store, table, segment)) is not None and (found.job, found.run) == (job, run):
        return found
    bucket, prefix = parse_s3(table)
    if delta is not None and (committed := delta.committed(segment)) is not None and committed >= run:
        # A file that the log names is never written again: its bytes could be others.
        there = delta.files(segment)
        digests = (_digest_of(store, bucket, prefix + file.key) for file in there)
        kept = [
            TableFile(key=file.key, rows=file.rows, bytes=file.bytes, sha256=digest)
            for file, digest in zip(there, digests, strict=True)
        ]
        return _completed(store, table, TableSegment.of(segment, job, committed, kept), check)
    # A later run writes beside the files that readers of the Delta log still see.
    attempt = f"-r{run}" if delta is not None and run else ""
    with TemporaryDirectory(prefix="imagemill-table-") as folder:
        spill = _spilled(store, job, Path(folder) / "rows.arrow")

        def written() -> Iterator[tuple[str, Path, int]]:
            for found in _files(spill, f"{segment:06d}{attempt}", file_bytes, Path(folder)):
                check()
                yield found

        # In parallel, because a backfill may have thousands of small files.
        files = list(in_parallel(partial(_put, store, bucket, prefix), written()))
    made = TableSegment.of(segment, job, run, files)
    if made.rows != spill.rows:
        raise ObjectDamaged(f"The files of segment {segment} of {table} hold other rows than {job}; report this.")
    if delta is not None and spill.schema is not None:
        check()
        named = [DeltaFile(file.key, file.rows, file.bytes) for file in files]
        delta.commit(segment, run, named, spill.schema, time.time())
    return _completed(store, table, made, check)


def _completed(store: ObjectStore, table: str, made: TableSegment, check: Callable[[], None]) -> TableSegment:
    """Delete what other runs and attempts left of a segment, and write its manifest."""
    bucket, prefix = parse_s3(table)
    check()
    # Files of an earlier run or attempt would hold rows a second time.
    kept = {prefix + file.key for file in made.files}
    for entry in store.list(prefix, bucket=bucket):
        match = _PART.search(entry.key)
        if match and int(match[1]) == made.segment and entry.key not in kept:
            store.delete(entry.key, bucket=bucket)
    store.put(parse_s3(segment_manifest(table, made.segment))[1], made.to_json(), bucket=bucket)
    return made


def _put(store: ObjectStore, bucket: str, prefix: str, written: tuple[str, Path, int]) -> TableFile:
    """Write a file to the table, and remove it from the local disk."""
    key, path, rows = written
    size, digest = path.stat().st_size, _sha256(path)
    store.put_file(prefix + key, path, bucket=bucket)
    path.unlink()
    return TableFile(key=key, rows=rows, bytes=size, sha256=digest)


def _spilled(store: ObjectStore, job: str, path: Path) -> _Spill:
    """Write the rows of a job to one local file, a shard in memory at a time."""
    spill, schema = _Spill(path), None
    writer = None
    number = 0
    try:
        for _, rows in tables(store, job):
            if writer is None:
                schema = spill.schema = rows.schema
                writer = pa.ipc.new_file(path, schema)
            if rows.schema != schema:
                raise ObjectDamaged(f"The shards of {job} have other columns than its first one; label them again.")
            for batch in rows.combine_chunks().to_batches():
                # Sorted once, so that an hour is read as slices: filtering each batch for each hour is quadratic.
                order = pc.sort_indices(_hours(batch))
                batch = batch.take(order)
                writer.write_batch(batch)
                first = 0
                for hour, hours in groupby(_hours(batch).to_pylist()):
                    count = sum(1 for _ in hours)
                    spill.slices.setdefault(hour, []).append((number, first, count))
                    first += count
                spill.rows += batch.num_rows
                number += 1
    finally:
        if writer is not None:
            writer.close()
    return spill


def _files(spill: _Spill, name: str, file_bytes: int, folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Yield the key, the local path and the number of rows of each file, hour by hour; the caller removes it."""
    if not spill.rows:
        return
    with pa.memory_map(str(spill.path)) as source, pa.ipc.open_file(source) as reader:
        for hour, slices in sorted(spill.slices.items(), key=lambda pair: (pair[0] is None, pair[0] or 0)):
            rows = (reader.get_batch(number).slice(first, count) for number, first, count in slices)
            for part, (path, count) in enumerate(_written(rows, reader.schema, file_bytes, folder, f"{hour}")):
                yield f"{_partition(hour)}part-{name}-{part:03d}.parquet", path, count


def _written(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, file_bytes: int, folder: Path, name: str
) -> Iterator[tuple[Path, int]]:
    """Write batches to files of about `file_bytes`; yield the path and the rows of each once it is whole."""
    for part in count_up():
        path, count, more = folder / f"{name}-{part}.parquet", 0, False
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for group in _groups(batches):
                writer.write_table(pa.Table.from_batches(group, schema))
                count += sum(batch.num_rows for batch in group)
                if path.stat().st_size >= file_bytes:
                    more = True
                    break
        if count:
            yield path, count
        if not more:
            return


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[Sequence[pa.RecordBatch]]:
    """Yield batches, as many at a time as make a row group."""
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        group.append(batch)
        size += batch.nbytes
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _hours(batch: pa.RecordBatch) -> pa.Array:
    """Return the hour of each row since the epoch, null where it has none."""
    if _TIME not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.int64())
    millis = batch.column(_TIME).cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    return pc.divide(millis, _HOUR_MS)


def _partition(hour: int | None) -> str:
    if hour is None:
        return f"dt={_NULL}/hour={_NULL}/"
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("dt=%Y-%m-%d/hour=%H/")


def _digest_of(store: ObjectStore, bucket: str, key: str) -> str:
    digest = hashlib.sha256()
    for piece in store.pieces(key, bucket=bucket):
        digest.update(piece)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
