"""Labelled rows as JSON Lines: one UTF-8 object a line, failures included."""

from __future__ import annotations

import json
from typing import TextIO

from producer.exports.labels.source import Labels, rounded


def write(labels: Labels, out: TextIO) -> tuple[int, int]:
    """Write every row; return how many, and 0."""
    count = 0
    for row in labels.rows():
        out.write(json.dumps(rounded(row), ensure_ascii=False) + "\n")
        count += 1
    return count, 0
