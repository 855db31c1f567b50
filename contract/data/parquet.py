"""Reads Parquet, on the calling thread alone. It knows nothing of what the columns mean.

Arrow's own threads can still hold a buffer of Python's when the interpreter ends; letting go of it then
aborts the process with "terminate called without an active exception": 2 of 120 runs that read 512 rows
and ended, 0 of 120 without those threads (https://github.com/apache/arrow/issues/34314).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS = 1000


def read_table(data: bytes) -> pa.Table:
    """The table in the bytes of a file. Raises pyarrow.ArrowException where they are none."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(use_threads=False)


def read_rows(source: Path | BinaryIO, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file of any size, of `columns` those that it has; a thousand are held at a time.

    Raises pyarrow.ArrowException where it is no Parquet.
    """
    with pq.ParquetFile(source) as file:
        wanted = [name for name in file.schema_arrow.names if name in columns]
        for batch in file.iter_batches(batch_size=_ROWS, columns=wanted, use_threads=False):
            yield from batch.to_pylist()
