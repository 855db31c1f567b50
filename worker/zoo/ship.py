"""Makes of a model that was pulled, and of what it was judged to be, one that ships with Imagemill.

    imagemill models pull my-fashion-cnn -o pulled
    imagemill show JUDGED --json > judged.json
    python -m worker.zoo.ship fashion-cnn pulled judged.json

The name is reserved, so the model was trained under another one.
The figures of the evaluations go into the record and the card, and it becomes version 1.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.jobs.status import Status
from contract.models.registry import Model, make_file
from worker.zoo.builtin import RECORD, SHIPPED

_AT_MOST = 4_000_000
"""Bytes of the weights."""


def ship(pulled: Path, judged: Sequence[Status], into: Path = SHIPPED, *, name: str = "") -> Model:
    """Write a folder for the model, called `name` if given, under `into`, and return its record."""
    model = Model.model_validate_json((pulled / RECORD).read_bytes())
    if model.weights.bytes > _AT_MOST:
        raise SystemExit(f"The weights of {model.ref} have {model.weights.bytes:,} bytes; train with --half.")
    assert model.card is not None, "a model that was trained has one"
    card = (pulled / model.card).read_text("utf-8").replace(f"# {model.ref}", f"# {name or model.name}@1", 1)
    metrics = dict(model.metrics)
    for status in judged:
        found = status.metrics or {}
        metrics |= {name: round(value, 6) for name, value in found.items()}
        card += _section(status, found)
    text = card.encode()
    files = tuple(make_file(file.name, text) if file.name == model.card else file for file in model.files)
    shipped = model.model_copy(
        update={"name": name or model.name, "version": 1, "owner": "", "metrics": metrics, "files": files}
    )
    folder = into / shipped.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (model.weights, *model.files):
        shutil.copyfile(pulled / file.name, folder / file.name)
    (folder / model.card).write_bytes(text)
    (folder / RECORD).write_bytes(shipped.to_json())
    return shipped


def _section(status: Status, found: dict[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in found.items())
    return f"""
## Judged by `imagemill evaluate`

On what it did not learn from of {status.source}.

| figure | value |
|---|---|
{rows}
"""


if __name__ == "__main__":
    named, folder, *statuses = sys.argv[1:]
    made = ship(Path(folder), [Status.model_validate_json(Path(path).read_bytes()) for path in statuses], name=named)
    print(f"{made.ref}: {made.weights.bytes:,} bytes, {len(made.files)} files beside them.")
