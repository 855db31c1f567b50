"""Writes the labels of a job to a file, a folder or a stream, in one of the formats that other programs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.data.label_rows import schema
from contract.errors import InvalidInput
from contract.jobs import results
from contract.jobs.specs import Classify
from producer.exports import labels, labels_imagefolder
from producer.sources.read import Images

Format = Literal["jsonl", "csv", "parquet", "imagefolder", "labelstudio"]


@dataclass(frozen=True)
class Written:
    """How many rows or images were written, and how many failures a format without a place for them left out."""

    written: int
    left_out: int = 0


def write_results(
    store: ObjectStore,
    images: Images,
    spec: Classify,
    format: Format,
    output: Path | TextIO,
    *,
    presign_hours: float = 0,
) -> Written:
    """Write the committed rows of a job; a file appears when it is complete.

    `images` reads the pictures of an `imagefolder`. Raises InvalidInput if the format cannot be written to `output`.
    """
    if not isinstance(output, Path):
        if format in ("parquet", "imagefolder"):
            raise InvalidInput(f"{format} cannot be written to a terminal or a pipe; name a place with -o.")
        return _write_text(store, spec, format, output, presign_hours)
    if format == "imagefolder":
        return Written(*labels_imagefolder.write(results.with_items(store, spec.id), output, images.read))
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.part")
    try:
        if format == "parquet":
            tables = (table for _, table in results.tables(store, spec.id))
            written = Written(labels.write_parquet(tables, schema(embedding=spec.embed), partial))
        else:
            with partial.open("w", encoding="utf-8", newline="") as file:
                written = _write_text(store, spec, format, file, presign_hours)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _write_text(store: ObjectStore, spec: Classify, format: Format, out: TextIO, presign_hours: float) -> Written:
    rows = results.rows(store, spec.id)
    if format == "jsonl":
        return Written(labels.write_jsonl(rows, out))
    if format == "csv":
        return Written(labels.write_csv(rows, out, schema(embedding=spec.embed).names))

    def address(uri: str) -> str:
        if presign_hours and uri.startswith("s3://") and "#" not in uri and not uri.endswith("/"):
            bucket, key = parse_s3(uri)
            return store.presign(key, bucket=bucket, hours=presign_hours)
        return uri

    return Written(*labels.write_labelstudio(rows, out, address))
