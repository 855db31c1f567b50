"""Reads Parquet on the calling thread alone. It does not know what the columns mean.

Arrow's own threads may still hold a Python buffer when the interpreter ends, and releasing it then aborts the process
with "terminate called without an active exception": in 2 of 120 runs that read 512 rows and ended, and in 0 of 120
without those threads (https://github.com/apache/arrow/issues/34314).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS = 1000
_THRIFT_BYTES, _THRIFT_ITEMS = 16 * 2**20, 1_000_000
"""What the footer may take; Arrow's own limits are ten times as high."""
_BUFFER = 2**20
_MAX_COLUMN = 2 * 2**30
"""The most bytes of a column in a row group, unpacked. A row group of the largest usual size, a million rows, has
100 MB of addresses."""
MAX_ROWS = 100_000_000


def read_table(data: bytes) -> pa.Table:
    """Return the table in the bytes of a file. Raises pyarrow.ArrowException if they are not Parquet."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(use_threads=False)


def read_rows(source: Path | BinaryIO, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of any size, with those of `columns` that it has; a thousand rows are held at a time.

    A damaged file can end this process: a file of a stranger is read by `contract.data.children.parquet`. Raises
    pyarrow.ArrowException or OSError if it is not Parquet, and ValueError if it unpacks to more than a manifest may
    hold.
    """
    yield from open_rows(source, columns)[1]


def open_rows(source: Path | BinaryIO, columns: Collection[str]) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Return those of `columns` that a file has, and its rows; raises what `read_rows` raises, here or at a row."""
    file = pq.ParquetFile(
        source,
        buffer_size=_BUFFER,
        thrift_string_size_limit=_THRIFT_BYTES,
        thrift_container_size_limit=_THRIFT_ITEMS,
    )
    wanted = [name for name in file.schema_arrow.names if name in columns]
    return wanted, _rows(file, wanted)


def _rows(file: pq.ParquetFile, wanted: Collection[str]) -> Iterator[dict[str, Any]]:
    with file:
        _check_size(file.metadata, wanted)
        for batch in file.iter_batches(batch_size=_ROWS, columns=wanted, use_threads=False):
            yield from batch.to_pylist()


def _check_size(found: pq.FileMetaData, wanted: Collection[str]) -> None:
    """Raise ValueError if the footer promises more rows, or larger columns among `wanted`, than a manifest has."""
    if not 0 <= found.num_rows <= MAX_ROWS:
        raise ValueError(f"it has {found.num_rows:,} rows, and a manifest at most {MAX_ROWS:,}")
    for group in range(found.num_row_groups):
        columns = found.row_group(group)
        for number in range(columns.num_columns):
            column = columns.column(number)
            if column.path_in_schema.partition(".")[0] in wanted and column.total_uncompressed_size > _MAX_COLUMN:
                raise ValueError(
                    f"its column {column.path_in_schema} unpacks to {column.total_uncompressed_size:,} bytes in one "
                    f"row group, more than {_MAX_COLUMN:,}; write smaller row groups"
                )
