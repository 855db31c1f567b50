"""Reads manifests on this machine row by row, and names the first row that cannot be right.

It decides what a row's address is; it does not open what the address names.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from contract.data.children.parquet import rows_apart
from contract.data.items import FRAMES_COLUMN, URI_COLUMNS, folder_label, label_of, parse_s3, row_frames, row_uri
from contract.data.sequences import MAX_FRAMES, spread
from contract.data.text import MAX_FRAMES_LINE, MAX_LINE, bounded_lines, parse_json, rows_of_csv
from contract.errors import InvalidSource
from producer.sources.folders import Local, LocalFile, LocalSequence, local_file

SUFFIXES = (".jsonl", ".csv", ".parquet")
_LABEL = "label"
REMOTE_SCHEMES = ("s3", "http", "https")
"""URI schemes that workers read themselves."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a manifest: `where` it stands, for people, which one it is, and its address or its frames."""

    where: str
    number: int
    uri: str = ""
    frames: tuple[str, ...] = ()
    label: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address in it."""
        return self.frames or (self.uri,)


def rows(path: Path, *, sequences: bool = False) -> Iterator[Row]:
    """Each row of a manifest; one that lists `frames` is for a model of `sequences`.

    Raises InvalidSource at the first row that has no address, or that cannot be read at all.
    """
    read = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[path.suffix.lower()]
    columns = (*URI_COLUMNS, FRAMES_COLUMN) if sequences else URI_COLUMNS
    try:
        for count, (number, row) in enumerate(read(path, columns), 1):
            where = f"{'Row' if path.suffix.lower() == '.parquet' else 'Line'} {number} of {path}"
            if not isinstance(row, dict):
                raise InvalidSource(f'{where} is not a JSON object; write {{"uri": "…"}} there.')
            label = None if row.get(_LABEL) in (None, "") else label_of(row[_LABEL], where)
            frames = row_frames(row, where) if sequences else None
            if frames is None:
                yield Row(where, count, uri=row_uri(row, where), label=label)
            else:
                yield Row(where, count, frames=tuple(frames), label=label)
    except UnicodeDecodeError as error:
        raise InvalidSource(f"{path} is not UTF-8 ({error.reason}); convert it and try again.") from error
    except OSError as error:
        raise InvalidSource(f"{path} cannot be read: {error.strerror or error}.") from error


def is_remote(uri: str, where: str) -> bool:
    """Return whether workers can read an address themselves; False for a path on this machine.

    Raises InvalidSource where it is neither.
    """
    if "://" not in uri:
        return False
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidSource(f"{where} has the address {uri!r}, which cannot be read: {error}.") from error
    if parts.scheme == "file":
        return False
    if parts.scheme not in REMOTE_SCHEMES:
        raise InvalidSource(f"{where} has the address {uri!r}; images are read from s3://, https://, http:// or paths.")
    complete = parse_s3(uri)[1] if parts.scheme == "s3" else parts.netloc
    if not complete:
        raise InvalidSource(f"{where} has the address {uri!r}, which names no image; correct it.")
    return True


def row_file(folder: Path, uri: str) -> LocalFile:
    """Return the file that a row of a manifest in `folder` names, by `file://` address or path."""
    named = url2pathname(urlsplit(uri).path) if uri.startswith("file://") else uri
    # Not `resolve`: a link has the name that the manifest gives it.
    path = os.path.abspath(folder / named)
    key = os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else path.lstrip("/")
    return local_file(key.replace(os.sep, "/"), path)


def row_item(path: Path, row: Row, frames: int) -> Local:
    """What a row of the manifest at `path` names on this machine; of frames at most so many are looked at."""
    if not row.frames:
        file = row_file(path.parent, row.uri)
        return replace(file, label=row.label or folder_label(file.key))
    chosen = spread(len(row.frames), frames) if len(row.frames) <= MAX_FRAMES else ()
    return LocalSequence(
        key=f"{path.name}#{row.number}",
        uri=f"{path.as_uri()}#{row.number}",
        frames=tuple(row_file(path.parent, row.frames[n]) for n in chosen),
        length=len(row.frames),
        label=row.label,
    )


def _jsonl(path: Path, columns: Collection[str]) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(path, columns):
        if line.strip():
            try:
                yield number, parse_json(line)
            except UnicodeDecodeError:
                raise
            except ValueError as error:
                raise InvalidSource(f"Line {number} of {path} is not JSON: {error}; correct the line.") from error


def _csv(path: Path, columns: Collection[str]) -> Iterator[tuple[int, Any]]:
    at = 1

    def text() -> Iterator[str]:
        nonlocal at
        for at, line in _lines(path, columns):  # noqa: B007
            yield f"{line.decode()}\n"

    try:
        rows = rows_of_csv(text())
        for number, row in enumerate(rows):
            if not number:
                _require_column(path, row, columns)
            yield at, row
    except csv.Error as error:
        raise InvalidSource(f"Line {at} of {path} is not CSV: {error}; correct the line.") from error


def _lines(path: Path, columns: Collection[str]) -> Iterator[tuple[int, bytes]]:
    limit = MAX_FRAMES_LINE if FRAMES_COLUMN in columns else MAX_LINE
    with path.open("rb") as file:
        yield from enumerate(bounded_lines(iter(lambda: file.read(2**20), b""), str(path), limit), 1)


def _parquet(path: Path, columns: Collection[str]) -> Iterator[tuple[int, Any]]:
    try:
        with path.open("rb") as file:
            found = rows_apart(
                file, (*columns, _LABEL), str(path), check=lambda names: _require_column(path, names, columns)
            )
            yield from enumerate(found, 1)
    except ValueError as error:
        raise InvalidSource(f"{path} cannot be read as Parquet: {error}; write it again.") from error


def _require_column(path: Path, names: Any, columns: Collection[str]) -> None:
    if not set(columns) & set(names):
        *others, last = (f"`{column}`" for column in columns)
        raise InvalidSource(
            f"{path} has neither a column {', '.join(others)} nor {last}; a manifest needs one of them."
        )
