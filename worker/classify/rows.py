"""Turn results into rows, and rows into Parquet. It knows no store."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.data.items import Item
from contract.data.label_rows import ERROR, OK, schema
from contract.data.parquet import read_table
from contract.errors import ImageError
from contract.models.registry import Model
from worker.engine.pipeline import Failed, Result


@dataclass
class Rows:
    """The rows of one shard, collected in order."""

    model: Model
    embed: bool
    watched: bool = False
    archived: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> int:
        return len(self.rows) - self.errors

    @property
    def errors(self) -> int:
        return self.codes.total()

    def add(self, item: Item, result: Result) -> None:
        """Add the outcome of one image."""
        row: dict[str, Any] = {
            "key": item.key,
            "uri": item.uri,
            "sha256": result.sha256,
            "model": self.model.ref,
            "weights_sha256": self.model.weights.sha256,
        }
        if self.watched:
            row.update(etag=item.etag, event_time=_time(item.modified), planned_at=_time(item.planned_at))
        if self.archived:
            row["archive"] = item.archive
        if isinstance(result, Failed):
            row.update(status=ERROR, error_code=result.error.code, error_message=str(result.error))
            self.codes[result.error.code] += 1
        else:
            names = self.model.labels
            top = [
                {"label": names[index], "label_index": index, "score": score}
                for index, score in zip(result.indices, result.scores, strict=True)
            ]
            row.update(status=OK, width=result.width, height=result.height, top_k=top, **top[0])
            if self.embed:
                row["embedding"] = result.features
            self.labels[names[result.indices[0]]] += 1
        self.rows.append(row)

    def keep(self, row: dict[str, Any]) -> None:
        """Add a row of an earlier run unchanged."""
        if row["status"] == ERROR:
            self.codes[row["error_code"]] += 1
        else:
            self.labels[row["label"]] += 1
        self.rows.append(row)

    def fail(self, item: Item, error: ImageError) -> None:
        """Add an error row for an image that was never decoded."""
        self.add(item, Failed(error=error, sha256=None))

    def parquet(self) -> bytes:
        """Return the rows as a Parquet file, compressed with zstd."""
        table = pa.Table.from_pylist(
            self.rows, schema=schema(embedding=self.embed, watched=self.watched, archived=self.archived)
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue()


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def read_rows(data: bytes) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file."""
    rows: list[dict[str, Any]] = read_table(data).to_pylist()
    return rows


def tally(rows: Sequence[dict[str, Any]], model: Model) -> Rows:
    """Count rows that exist already."""
    found = Rows(model, embed=False)
    for row in rows:
        found.keep(row)
    return found
