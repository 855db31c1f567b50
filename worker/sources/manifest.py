"""Lists the rows of a manifest in the store: JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa

from contract.data.items import FRAMES_COLUMN, URI_COLUMNS, Item, item_of, parse_s3, row_frames, row_uri
from contract.data.parquet import read_rows
from contract.data.sequences import MAX_FRAMES, spread
from contract.errors import InvalidSource
from worker.sources.lister import Lister


class Manifest(Lister):
    """An item a row; with `frames` a row may list the frames of a sequence."""

    def items(self) -> Iterator[Item]:
        bucket, key = parse_s3(self.source.uri)
        try:
            for number, row in enumerate(self._rows(bucket, key), 1):
                where = f"Row {number} of {self.source.label}"
                if not isinstance(row, dict):
                    raise InvalidSource(f'{where} is no JSON object; write {{"uri": "…"}} there.')
                listed = row_frames(row, where) if self.frames else None
                item = item_of(row_uri(row, where)) if listed is None else self._row(number, listed)
                label = row.get("label") if self.labels else None
                yield item if label is None else dataclasses.replace(item, label=str(label))
        except (ValueError, csv.Error, pa.ArrowException) as error:  # no JSON, no UTF-8, no CSV, no Parquet
            raise InvalidSource(f"{self.source.label} cannot be read as a manifest: {error}.") from error

    def _row(self, number: int, listed: list[str]) -> Item:
        """Return the sequence of the frames that a row lists, in their order."""
        chosen = spread(len(listed), self.frames) if len(listed) <= MAX_FRAMES else ()
        frames = (item_of(listed[n]) for n in chosen)
        key = f"{PurePosixPath(self.source.label).name}#{number}"
        return Item.of_frames(key, f"{self.source.uri}#{number}", frames, length=len(listed))

    def _rows(self, bucket: str, key: str) -> Iterator[object]:
        if key.endswith(".parquet"):
            with tempfile.TemporaryFile() as file:
                for piece in self.store.pieces(key, bucket=bucket):
                    file.write(piece)
                yield from read_rows(file, (*URI_COLUMNS, FRAMES_COLUMN, "label"))
        elif key.endswith(".csv"):
            # With its line feeds, for a quoted cell may hold some; a byte order mark is none of the data.
            lines = (f"{line.decode()}\n" for line in self.store.lines(key, bucket=bucket))
            yield from csv.DictReader(_without_mark(lines))
        else:
            for line in self.store.lines(key, bucket=bucket):
                if line.strip():
                    yield json.loads(line)


def _without_mark(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix("\ufeff")
