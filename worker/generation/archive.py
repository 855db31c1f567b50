"""Builds the two objects of a shard of generated images in memory: the tar of files with their JSON, and the index."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.data.image_index import SUFFIX, SYNTHETIC, sample_key, schema, sha256
from contract.data.provenance import provenance
from contract.jobs.specs import ImagesSpec, Synthesize
from contract.models.registry import Model
from contract.records import ImageFormat
from worker.generation import tar_writer

Row = dict[str, Any]
"""A row of the index, see `contract.data.image_index.schema`."""


_json = json.JSONEncoder(ensure_ascii=False).encode  # `json.dumps` would make an encoder a call


class Archive:
    """Collects the images of a shard in memory: a few thousand, as the shard size bounds them."""

    def __init__(self, image_format: ImageFormat) -> None:
        self._suffix = SUFFIX[image_format]
        self._members: list[bytes] = []
        self._size = 0
        self.rows: list[Row] = []

    def add(self, row: Row, image: bytes, facts: Mapping[str, object]) -> None:
        """Add an image under its key with a JSON of `facts`, and its row with the hash and place of the file."""
        offset = self._size + tarfile.BLOCKSIZE
        self._keep(f"{row['key']}{self._suffix}", image)
        self._keep(f"{row['key']}.json", _json(facts).encode())
        self.rows.append({**row, "sha256": sha256(image), "size": len(image), "offset": offset})

    def reject(self, row: Row) -> None:
        """Add the row of a rejected image, without a file."""
        self.rows.append(row)

    def close(self) -> bytes:
        """Return the tar."""
        return b"".join((*self._members, tar_writer.end(self._size)))

    def _keep(self, name: str, data: bytes) -> None:
        # USTAR: names are short, and its headers take a block where PAX takes three.
        member = tar_writer.member(name, data)
        self._members.append(member)
        self._size += len(member)


def index(rows: list[Row], kind: str, extra: Mapping[str, pa.Array] | None = None) -> bytes:
    """Return the index of `rows` as Parquet (zstd), with `extra` columns after those of the kind's schema."""
    table = pa.Table.from_pylist(rows, schema=schema(kind))
    for name, column in (extra or {}).items():
        table = table.append_column(name, column)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def facts(spec: ImagesSpec, row: Row) -> dict[str, object]:
    """Return the JSON beside an image in its tar: what it takes to make it again, and that it is synthetic."""
    told = ("label", "label_index", "seed", "index", "predicted", "score", "model", "weights_sha256")
    own = ("original", "mse", "position")
    found: dict[str, object] = {name: row[name] for name in (*told, *own) if row.get(name) is not None}
    found |= provenance(spec).image_facts()
    return {**found, "job": spec.id, "synthetic": True, "DigitalSourceType": SYNTHETIC}


def version_of(spec: ImagesSpec) -> int:
    """Return the version of a dataset that the images become, 0 if they become none."""
    return spec.extend.number if isinstance(spec, Synthesize) and spec.extend is not None else 0


def new_row(spec: ImagesSpec, model: Model, label: int, number: int, side: int) -> Row:
    """Return the row of an image that is neither judged nor stored yet."""
    return {
        "key": sample_key(label, number, version_of(spec)),
        "label": model.labels[label],
        "label_index": label,
        "seed": provenance(spec).origin().get("seed"),
        "index": number,
        "accepted": True,
        "reject_reason": None,
        "predicted": None,
        "score": None,
        "duplicate_distance": None,
        "copy_distance": None,
        "nearest": None,
        "sha256": None,
        "width": side,
        "height": side,
        "size": None,
        "offset": None,
        "model": spec.model,
        "weights_sha256": spec.weights_sha256,
    }
