"""Generated images in one Parquet file, as Hugging Face `datasets` writes and reads them.

The column `image` is a struct of `bytes` and `path`, `label` the number of a class; their meaning is in the schema's
metadata under `huggingface`, so that `load_dataset("parquet")` gives images and named classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.data import image_index
from contract.data.dataset_card import Layout, columns, image_suffix, python
from contract.data.dataset_stats import DatasetStats
from contract.jobs.kinds import kind_of
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from producer.exports.images.accepted import ImageSet
from producer.exports.images.croissant import DataFile, Records, column, field, fields
from producer.exports.images.target import Target

PARQUET, CANDIDATES = "train.parquet", "candidates.parquet"

_ROWS, _BYTES = 1000, 32 * 2**20
"""A row group ends at this many images or bytes, whichever comes first; one group is held in memory."""

_FEATURES = {"string": "string", "int32": "int32", "int64": "int64", "float": "float32"}


def write(images: ImageSet, target: Target, done: Callable[[int], None]) -> list[str]:
    """Write every image, row group by row group, and the candidates if some were rejected; return the file names."""
    spec, stats = images.spec, images.stats
    columns_ = schema(spec, stats)
    numbers, suffix = stats.numbers, image_suffix(spec)
    told = [name for name in columns_.names if name not in ("image", "label")]
    text = [column.name for column in columns_ if pa.types.is_string(column.type)]
    with (
        target.writing(PARQUET) as (file,),
        pq.ParquetWriter(file, columns_, compression="zstd", use_dictionary=text, write_page_index=True) as writer,
    ):
        for group in _groups(images.accepted()):
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
    return [PARQUET, *(_write_candidates(images, target) if has_candidates(spec) else [])]


def _write_candidates(images: ImageSet, target: Target) -> list[str]:
    with (
        target.writing(CANDIDATES) as (file,),
        pq.ParquetWriter(file, image_index.schema(), compression="zstd") as writer,
    ):
        for _, index in images.shards():
            writer.write_table(index.cast(image_index.schema()))
    return [CANDIDATES]


def has_candidates(spec: ImagesSpec) -> bool:
    """Whether a job rejects images; one without a gate keeps all."""
    return kind_of(spec).judge is not None


def schema(spec: ImagesSpec, stats: DatasetStats) -> pa.Schema:
    """Return the columns of the file, with the features that `datasets` reads from their metadata."""
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


def dataset_info(spec: ImagesSpec, stats: DatasetStats) -> Mapping[str, Any]:
    """Return the columns as Hugging Face lists them in a card."""
    types = {one.name: str(one.type) for one in image_index.schema(spec.kind)}
    names = {str(number): label for number, label in enumerate(stats.labels)}
    return {
        "features": [
            {"name": "image", "dtype": "image"},
            {"name": "label", "dtype": {"class_label": {"names": names}}},
            *({"name": name, "dtype": _FEATURES[types[name]]} for name in columns(spec) if name != "label"),
        ]
    }


LAYOUT = Layout(
    name="parquet",
    load=python(f'from datasets import load_dataset\n\nimages = load_dataset("parquet", data_files="DIR/{PARQUET}")'),
    columns=(
        f"In `{PARQUET}` beside `image`; `label` is a number there, that of the class in the table above. "
        f"`{CANDIDATES}`, where it is there, has a row for each candidate, rejected ones too."
    ),
    data_files=PARQUET,
    dataset_info=dataset_info,
)


def records(spec: ImagesSpec, files: Sequence[DataFile]) -> Records:
    """Say where Croissant finds images, their columns and, if they were written, the candidates."""
    file = {"fileObject": {"@id": PARQUET}}
    image = column(file, "image") | {"transform": {"jsonPath": "bytes"}}
    label = field("images/label", "cr:Int64", column(file, "label")) | {
        "references": {"field": {"@id": "classes/label"}}
    }
    others = [one for one in fields(spec, file) if one["@id"] != "images/label"]
    listed = any(one.name == CANDIDATES for one in files)
    return Records(
        [field("images/image", "sc:ImageObject", image), label, *others],
        candidates={"fileObject": {"@id": CANDIDATES}} if listed else None,
    )


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
