"""Lists the rows of a manifest in the store: JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from contract.backend.uploads import Uses
from contract.data.children import parquet as parquet_child
from contract.data.children.limits import is_expendable
from contract.data.children.parquet import rows_apart
from contract.data.children.process import Running
from contract.data.items import FRAMES_COLUMN, URI_COLUMNS, Item, item_of, label_of, parse_s3, row_frames, row_uri
from contract.data.parquet import read_rows
from contract.data.sequences import MAX_FRAMES, spread
from contract.data.text import MAX_FRAMES_LINE, MAX_LINE, bounded_lines, parse_json, rows_of_csv
from contract.errors import InvalidSource
from worker.confinement.child import start
from worker.confinement.confine import Limits
from worker.sources.lister import Lister

_PARQUET = Limits(memory=2 * 2**30)
"""What the child that reads Parquet may use; a row group of a million addresses takes 100 MB unpacked."""


class Manifest(Lister):
    """An item a row; with `frames` a row may list the frames of a sequence."""

    def items(self) -> Iterator[Item]:
        bucket, key = parse_s3(self.source.uri)
        uses = Uses(self.store)
        try:
            for number, row in enumerate(self._rows(bucket, key), 1):
                where = f"Row {number} of {self.source.label}"
                if not isinstance(row, dict):
                    raise InvalidSource(f'{where} is no JSON object; write {{"uri": "…"}} there.')
                listed = row_frames(row, where) if self.frames else None
                item = item_of(row_uri(row, where)) if listed is None else self._row(number, listed)
                for one in item.frames or (item,):
                    uses.note(one.uri)
                label = row.get("label") if self.labels else None
                yield item if label in (None, "") else dataclasses.replace(item, label=label_of(label, where))
        except (ValueError, csv.Error, OSError, pa.ArrowException) as error:  # no JSON, no UTF-8, no CSV, no Parquet
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
                columns = (*URI_COLUMNS, FRAMES_COLUMN, "label")
                if is_expendable():
                    yield from read_rows(file, columns)
                else:
                    yield from rows_apart(file, columns, self.source.label, start=_confined)
        elif key.endswith(".csv"):
            yield from rows_of_csv(f"{line.decode()}\n" for line in self._lines(bucket, key))
        else:
            for line in self._lines(bucket, key):
                if line.strip():
                    yield parse_json(line)

    def _lines(self, bucket: str, key: str) -> Iterator[bytes]:
        # A piece that is cut into lines takes several times its size.
        pieces = self.store.pieces(key, bucket=bucket, size=2**20)
        return bounded_lines(pieces, self.source.label, MAX_FRAMES_LINE if self.frames else MAX_LINE)


def _confined(file: BinaryIO, columns: Sequence[str]) -> Running:
    """Start a confined child that reads Parquet from `file`."""
    return start(_PARQUET, parquet_child.MODULE, *columns, stdin=file)
