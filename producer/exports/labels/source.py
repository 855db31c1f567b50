"""The labels of one job as an exporter sees them: its committed rows, where the images lie, and how to read one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import pyarrow as pa

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3
from contract.data.label_rows import schema
from contract.jobs import results
from contract.jobs.results import Row
from contract.jobs.sources import source_kind
from contract.jobs.specs import Classify
from contract.times import iso

_DIGITS = 6
"""Digits behind the point: a float32 softmax holds no more."""


@dataclass(frozen=True)
class Labels:
    """The committed rows of a job. Each call of `tables` or `shards` is one pass, with one shard in memory."""

    schema: pa.Schema
    tables: Callable[[], Iterable[pa.Table]]
    shards: Callable[[], Iterable[list[tuple[Row, Item]]]]
    """Rows with the manifest items that say where their images are, shard by shard."""
    read: Callable[[Item], bytes]
    """Return the bytes of an image; raise ImageNotFound if they are gone."""
    link: Callable[[str], str] = str
    """Turn the address of an image into the one that another program should load."""
    where: Callable[[Row], str] = itemgetter("uri")
    """Return the address of a row's image: where it was labelled, or where its watch has moved it since."""

    def rows(self) -> Iterator[Row]:
        """Return every row, failures included."""
        for table in self.tables():
            yield from table.to_pylist()


def labels_of(store: ObjectStore, spec: Classify, read: Callable[[Item], bytes], *, presign_hours: float = 0) -> Labels:
    """Return the labels of a job; with `presign_hours`, `link` turns `s3://` into web addresses valid that long."""

    def link(uri: str) -> str:
        if presign_hours and uri.startswith("s3://") and "#" not in uri and not uri.endswith("/"):
            bucket, key = parse_s3(uri)
            return store.presign(key, bucket=bucket, hours=presign_hours)
        return uri

    def where(row: Row) -> str:
        if archive := row.get("archive"):
            bucket, key = parse_s3(archive)
            return str(archive) if store.exists(key, bucket=bucket) else str(row["uri"])
        return str(row["uri"])

    return Labels(
        schema=schema(
            embedding=spec.embed,
            watched=source_kind(spec.source.kind).watched,
            archived=spec.source.archived,
        ),
        tables=lambda: (table for _, table in results.tables(store, spec.id)),
        shards=lambda: results.with_items(store, spec.id),
        read=read,
        link=link,
        where=where,
    )


def rounded(value: Any) -> Any:
    """Return a value of a row for text formats: every float in it is rounded, and a time is ISO 8601."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, datetime):
        return iso(value.timestamp())
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return value
