"""Generated images in one Parquet file, as Hugging Face `datasets` writes and reads them.

The column `image` is a struct of `bytes` and `path`, `label` the number of a class; their meaning is in the schema's
metadata under `huggingface`, so that `load_dataset("parquet")` gives images and named classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.data import image_index
from contract.data.dataset_card import CANDIDATES, PARQUET, columns, image_suffix
from contract.data.dataset_stats import DatasetStats
from contract.jobs.kinds import kind_of
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from producer.exports.images.target import Target

_ROWS, _BYTES = 1000, 32 * 2**20
"""A row group has so many images or so many bytes at most, and an image more: it is what is held in memory."""

_FEATURES = {"string": "string", "int32": "int32", "int64": "int64", "float": "float32"}


def write(
    spec: ImagesSpec,
    stats: DatasetStats,
    images: Iterable[tuple[Row, bytes]],
    target: Target,
    done: Callable[[int], None],
) -> list[str]:
    """Write every image, row group by row group; returns the names of the files."""
    columns_ = schema(spec, stats)
    numbers, suffix = stats.numbers, image_suffix(spec)
    told = [name for name in columns_.names if name not in ("image", "label")]
    text = [column.name for column in columns_ if pa.types.is_string(column.type)]
    with (
        target.writing(PARQUET) as (file,),
        pq.ParquetWriter(file, columns_, compression="zstd", use_dictionary=text, write_page_index=True) as writer,
    ):
        for group in _groups(images):
            rows = [
                {
                    "image": {"bytes": data, "path": f"{row['key']}{suffix}"},
                    "label": numbers[row["label_index"]],
                    **{name: row[name] for name in told},
                }
                for row, data in group
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=columns_))
            done(len(rows))
    return [PARQUET]


def write_candidates(indices: Iterable[pa.Table], target: Target) -> list[str]:
    """Write a row for each candidate, rejected ones too; returns the names of the files."""
    with (
        target.writing(CANDIDATES) as (file,),
        pq.ParquetWriter(file, image_index.schema(), compression="zstd") as writer,
    ):
        for index in indices:
            writer.write_table(index.cast(image_index.schema()))
    return [CANDIDATES]


def has_candidates(spec: ImagesSpec) -> bool:
    """Whether a job rejects any: one that only generates keeps all."""
    return kind_of(spec).judge is not None


def schema(spec: ImagesSpec, stats: DatasetStats) -> pa.Schema:
    """The columns of the file, with what `datasets` makes of them."""
    types = {column.name: column.type for column in image_index.schema(spec.kind)}
    told = {name: types[name] for name in columns(spec) if name != "label"}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(stats.labels)},
        **{name: {"_type": "Value", "dtype": _FEATURES[str(kind)]} for name, kind in told.items()},
    }
    fields = [("image", image), ("label", pa.int64()), *told.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _groups(images: Iterable[tuple[Row, bytes]]) -> Iterator[list[tuple[Row, bytes]]]:
    group: list[tuple[Row, bytes]] = []
    size = 0
    for row, data in images:
        group.append((row, data))
        size += len(data)
        if len(group) == _ROWS or size >= _BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
