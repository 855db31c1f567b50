"""Turns labelled rows into formats that people know: JSON lines, CSV, Parquet, Label Studio.

It writes to what it is given and streams: one shard's rows are in memory at a time. The image folder,
which also needs the images, is `producer.exports.labels_imagefolder`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from contract.data.label_rows import ERROR
from contract.jobs.results import Row

_DIGITS = 6
"""Digits behind the point: a float32 softmax holds no more."""


def rounded(value: Any) -> Any:
    """A value of a row with every float in it rounded, for text formats."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return value


def write_jsonl(rows: Iterable[Row], out: TextIO) -> int:
    """One JSON object a line, UTF-8; returns the number of rows."""
    count = 0
    for row in rows:
        out.write(json.dumps(rounded(row), ensure_ascii=False) + "\n")
        count += 1
    return count


def write_csv(rows: Iterable[Row], out: TextIO, columns: list[str]) -> int:
    """CSV with a header; lists are JSON in their cell. Returns the number of rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow([_cell(rounded(row.get(column))) for column in columns])
        count += 1
    return count


def write_parquet(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> int:
    """One Parquet file, zstd, a row group a shard; returns the number of rows."""
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            count += len(table)
    return count


def write_labelstudio(rows: Iterable[Row], out: TextIO, address: Callable[[str], str]) -> tuple[int, int]:
    """A JSON list of Label Studio tasks with predictions, to import as it is.

    `address` makes of an image's `uri` what the browser is to load. Failures are left out; returns how
    many tasks were written and how many rows were left out. https://labelstud.io/guide/predictions
    """
    written = failed = 0
    out.write("[")
    for row in rows:
        if row["status"] == ERROR:
            failed += 1
            continue
        out.write(",\n" if written else "\n")
        out.write(json.dumps(task(row, address(row["uri"])), ensure_ascii=False))
        written += 1
    out.write("\n]\n")
    return written, failed


def task(row: Row, image: str) -> dict[str, Any]:
    """One Label Studio task with its prediction."""
    choice = {
        "from_name": "label",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [row["label"]]},
    }
    prediction = {"model_version": row["model"], "score": rounded(row["score"]), "result": [choice]}
    return {"data": {"image": image, "key": row["key"]}, "predictions": [prediction]}


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
