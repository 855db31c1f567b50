"""Turns results into the rows of a reply, which have the columns of a job's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from contract.data.items import Item
from contract.data.label_rows import schema
from contract.errors import ImagemillError
from contract.models.registry import Model
from contract.online.messages import Classify
from worker.classify.rows import Rows
from worker.engine.pipeline import Labelled, Result


def rows_of(model: Model, request: Classify, results: Sequence[Result]) -> tuple[dict[str, Any], ...]:
    """Return a row for each result; of each, the request may want fewer classes, and no features."""
    rows = Rows(model, request.embed)
    for key, result in zip(request.keys, results, strict=True):
        if isinstance(result, Labelled):
            result = replace(result, indices=result.indices[: request.top_k], scores=result.scores[: request.top_k])
        rows.add(Item(key=key, uri=""), result)
    columns = _columns(request.embed)
    return tuple({column: _plain(row.get(column)) for column in columns} | {"uri": None} for row in rows.rows)


@cache
def _columns(embedding: bool) -> tuple[str, ...]:
    return tuple(schema(embedding=embedding).names)


def said(error: BaseException) -> str:
    """Return what an error says, in a reply."""
    return f"{type(error).__name__}: {error}"[:300] if not isinstance(error, ImagemillError) else str(error)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
