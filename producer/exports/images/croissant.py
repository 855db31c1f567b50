"""Croissant metadata of generated images: JSON-LD that says which files there are, and what a record is in them.

Croissant 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. Pure; it knows no store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from contract.data.dataset_card import (
    CANDIDATES,
    FOLDER_METADATA,
    IDX_METADATA,
    PARQUET,
    Layout,
    columns,
    image_suffix,
    title,
)
from contract.data.dataset_stats import DatasetStats
from contract.data.image_index import schema
from contract.data.provenance import provenance
from contract.jobs.kinds import kind_of
from contract.jobs.specs import ImagesSpec

Node = dict[str, Any]

CONTEXT: Node = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the specification, word for word: readers warn of any other."""

_FORMATS = {
    ".tar": "application/x-tar",
    ".parquet": "application/x-parquet",
    ".jsonl": "application/jsonlines",
    ".txt": "text/plain",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}
_TYPES = {
    "string": "sc:Text",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "float": "cr:Float32",
    "bool": "sc:Boolean",
}


@dataclass(frozen=True)
class DataFile:
    """A file of a data set: its path from the folder of the metadata, sha256 and bytes."""

    name: str
    sha256: str
    size: int


def data_file(name: str, data: bytes) -> DataFile:
    """The entry of these bytes."""
    return DataFile(name, hashlib.sha256(data).hexdigest(), len(data))


def croissant(
    spec: ImagesSpec, stats: DatasetStats, layout: Layout, files: Sequence[DataFile], *, created_at: str
) -> Node:
    """The metadata of a data set of these files, ready for JSON; `created_at` is when the job was made, ISO 8601.

    The record set `images` has a record an image, with the pixels where a reader can get at them (not in IDX),
    `classes` one a class, and `candidates`, where rejected ones are told of, one a candidate.
    """
    distribution = [_file_object(file) for file in files]
    if layout == "webdataset":
        sets, images = _webdataset(spec, files)
    elif layout == "imagefolder":
        sets, images = _imagefolder(spec)
    elif layout == "parquet":
        sets, images = [], _parquet(spec)
    else:
        sets, images = [], _fields(spec, {"fileObject": {"@id": IDX_METADATA}})
    records = [_record_set("images", "images/key", images), _classes(stats)]
    if any(file.name == CANDIDATES for file in files):
        records.append(_candidates(spec, {"fileObject": {"@id": CANDIDATES}}))
    elif layout == "webdataset":
        records.append(_candidates(spec, {"fileSet": {"@id": "indices"}}))
    rai = {
        "rai:dataCollection": provenance(spec).description(),
        "rai:dataLimitations": "The images show what the generator has learnt, with its errors and biases.",
    }
    if (judge := kind_of(spec).judge) is not None:
        rai["rai:machineAnnotationTools"] = getattr(spec, judge)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": spec.id,
        "alternateName": title(spec, stats),
        "description": provenance(spec).description(),
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "dateCreated": created_at,
        "datePublished": created_at,
        "version": "1.0.0",
        "citeAs": f"@misc{{{spec.id}, title = {{{title(spec, stats)}}}, year = {{{created_at[:4]}}}}}",
        "keywords": ["synthetic", "imagemill", *stats.labels],
        **rai,
        "distribution": [*distribution, *sets],
        "recordSet": records,
    }


def _webdataset(spec: ImagesSpec, files: Sequence[DataFile]) -> tuple[list[Node], list[Node]]:
    suffix = image_suffix(spec)
    tars = [{"@id": file.name} for file in files if file.name.endswith(".tar")]
    sets = [
        _file_set("image-files", f"*{suffix}", suffix, "The images in the tars.", containedIn=tars),
        _file_set("indices", "shard-*.parquet", ".parquet", "A row for each candidate, of each shard."),
    ]
    return sets, _joined(spec, suffix, {"fileSet": {"@id": "indices"}})


def _imagefolder(spec: ImagesSpec) -> tuple[list[Node], list[Node]]:
    suffix = image_suffix(spec)
    sets = [_file_set("image-files", f"train/*/*{suffix}", suffix, "The images, a folder a class.")]
    metadata = {"fileObject": {"@id": FOLDER_METADATA}}
    name = _field("images/file_name", "sc:Text", _column(metadata, "file_name"))
    return sets, [*_joined(spec, suffix, metadata), name]


def _joined(spec: ImagesSpec, suffix: str, told: Mapping[str, Any]) -> list[Node]:
    """The fields where images are files, and what is told of them is elsewhere, under their keys."""
    files = {"fileSet": {"@id": "image-files"}}
    # The suffix may be gone: mlcroissant applies a transform when it joins, and once more when it reads.
    stem = {"extract": {"fileProperty": "filename"}, "transform": {"regex": rf"^([^/.]+)(?:\{suffix})?$"}}
    key = _field("images/key", "sc:Text", {**files, **stem}) | {"references": _column(told, "key")}
    pixels = _field("images/image", "sc:ImageObject", {**files, "extract": {"fileProperty": "content"}})
    return [pixels, key, *(field for field in _fields(spec, told) if field["@id"] != key["@id"])]


def _parquet(spec: ImagesSpec) -> list[Node]:
    file = {"fileObject": {"@id": PARQUET}}
    source = _column(file, "image") | {"transform": {"jsonPath": "bytes"}}
    label = _field("images/label", "cr:Int64", _column(file, "label")) | {
        "references": {"field": {"@id": "classes/label"}}
    }
    others = [field for field in _fields(spec, file) if field["@id"] != "images/label"]
    return [_field("images/image", "sc:ImageObject", source), label, *others]


def _classes(stats: DatasetStats) -> Node:
    """The classes by their numbers in the data set."""
    data = [
        {"classes/label": number, "classes/name": found.label, "classes/images": found.accepted}
        for number, found in enumerate(stats.classes)
    ]
    fields = [
        _field("classes/label", "cr:Int64"),
        _field("classes/name", "sc:Text"),
        _field("classes/images", "cr:Int64"),
    ]
    return _record_set("classes", "classes/label", fields) | {"dataType": "sc:Enumeration", "data": data}


def _candidates(spec: ImagesSpec, source: Mapping[str, Any]) -> Node:
    fields = [
        _field(f"candidates/{column.name}", _TYPES[str(column.type)], _column(source, column.name))
        for column in schema(spec.kind)
    ]
    return _record_set("candidates", "candidates/key", fields)


def _fields(spec: ImagesSpec, source: Mapping[str, Any]) -> list[Node]:
    """A field for each of `contract.data.dataset_card.columns`."""
    types = {column.name: _TYPES[str(column.type)] for column in schema(spec.kind)}
    return [_field(f"images/{name}", types[name], _column(source, name)) for name in columns(spec)]


def _column(source: Mapping[str, Any], name: str) -> Node:
    return {**source, "extract": {"column": name}}


def _field(id: str, data_type: str, source: Node | None = None) -> Node:
    field = {"@type": "cr:Field", "@id": id, "name": id.partition("/")[2], "dataType": data_type}
    return field if source is None else {**field, "source": source}


def _record_set(id: str, key: str, fields: Sequence[Node]) -> Node:
    return {"@type": "cr:RecordSet", "@id": id, "name": id, "key": {"@id": key}, "field": list(fields)}


def _file_object(file: DataFile) -> Node:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
        "contentSize": f"{file.size} B",
        "encodingFormat": _FORMATS.get(PurePosixPath(file.name).suffix, "application/octet-stream"),
        "sha256": file.sha256,
    }


def _file_set(id: str, includes: str, suffix: str, description: str, **fields: Any) -> Node:
    return {
        "@type": "cr:FileSet",
        "@id": id,
        "name": id,
        "description": description,
        "encodingFormat": _FORMATS[suffix],
        "includes": includes,
        **fields,
    }
