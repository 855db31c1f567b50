"""Labelled rows as a JSON list of Label Studio tasks with predictions, ready to import.

The format: https://labelstud.io/guide/predictions. Failures are left out.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from contract.data.label_rows import ERROR
from contract.jobs.results import Row
from producer.exports.labels.source import Labels, rounded


def write(labels: Labels, out: TextIO) -> tuple[int, int]:
    """Write a task for each labelled image; return how many, and how many rows were left out."""
    written = left_out = 0
    out.write("[")
    for row in labels.rows():
        if row["status"] == ERROR:
            left_out += 1
            continue
        out.write(",\n" if written else "\n")
        out.write(json.dumps(_task(row, labels.link(labels.where(row))), ensure_ascii=False))
        written += 1
    out.write("\n]\n")
    return written, left_out


def _task(row: Row, image: str) -> dict[str, Any]:
    choice = {
        "from_name": "label",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [row["label"]]},
    }
    prediction = {"model_version": row["model"], "score": rounded(row["score"]), "result": [choice]}
    return {"data": {"image": image, "key": row["key"], "uri": row["uri"]}, "predictions": [prediction]}
