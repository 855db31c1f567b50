"""Labelled rows as CSV with a header, failures included; a list is JSON in its cell."""

from __future__ import annotations

import csv
import json
from typing import Any, TextIO

from producer.exports.labels.source import Labels, rounded


def write(labels: Labels, out: TextIO) -> tuple[int, int]:
    """Write every row; return how many, and 0."""
    columns = labels.schema.names
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    for row in labels.rows():
        writer.writerow([_cell(rounded(row.get(column))) for column in columns])
        count += 1
    return count, 0


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
