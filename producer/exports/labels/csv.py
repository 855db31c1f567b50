"""Labelled rows as CSV with a header, failures included; a list is JSON in its cell.

Text that a spreadsheet would take for a formula has an apostrophe in front (`contract.printable.csv_line`);
JSONL and Parquet are exact.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from contract.printable import csv_line
from producer.exports.labels.source import Labels, rounded


def write(labels: Labels, out: TextIO) -> tuple[int, int]:
    """Write every row; return how many, and 0."""
    columns = labels.schema.names
    out.write(csv_line(columns))
    count = 0
    for row in labels.rows():
        out.write(csv_line(_cell(rounded(row.get(column))) for column in columns))
        count += 1
    return count, 0


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
