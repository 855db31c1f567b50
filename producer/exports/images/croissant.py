"""Croissant metadata of generated images: JSON-LD that says which files there are, and what a record is in them.

Croissant 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. Pure; it knows no store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from contract.data.dataset_card import columns, title
from contract.data.dataset_stats import DatasetStats
from contract.data.image_index import schema
from contract.data.provenance import provenance
from contract.jobs.kinds import kind_of
from contract.jobs.specs import ImagesSpec

CROISSANT = "croissant.json"
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
"""The context of the specification, verbatim: readers warn about any other."""

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
    """A file of a dataset: its path relative to the metadata, its sha256 and its size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Records:
    """Where a format keeps its records: file sets, the fields of an image, and the source of candidates, if any."""

    images: Sequence[Node]
    sets: Sequence[Node] = ()
    candidates: Node | None = None


def data_file(name: str, data: bytes) -> DataFile:
    """Return the entry of a file that holds `data`."""
    return DataFile(name, hashlib.sha256(data).hexdigest(), len(data))


def croissant(
    spec: ImagesSpec, stats: DatasetStats, records: Records, files: Sequence[DataFile], *, created_at: str
) -> Node:
    """Return the metadata of a dataset of these files, ready for JSON; `created_at` is the job's creation, ISO 8601.

    The record set `images` has a record for each image, `classes` one for each class, and `candidates`, if the format
    lists them, one for each candidate, rejected ones included.
    """
    distribution = [_file_object(file) for file in files]
    record_sets = [_record_set("images", "images/key", records.images), _classes(stats)]
    if records.candidates is not None:
        record_sets.append(_candidates(spec, records.candidates))
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
        "distribution": [*distribution, *records.sets],
        "recordSet": record_sets,
    }


def joined(spec: ImagesSpec, suffix: str, told: Mapping[str, Any]) -> list[Node]:
    """Return the fields where images are files of the set `image-files`, joined by key to their columns in `told`."""
    files = {"fileSet": {"@id": "image-files"}}
    # The suffix is optional: mlcroissant applies a transform when it joins, and once more when it reads.
    stem = {"extract": {"fileProperty": "filename"}, "transform": {"regex": rf"^([^/.]+)(?:\{suffix})?$"}}
    key = field("images/key", "sc:Text", {**files, **stem}) | {"references": column(told, "key")}
    pixels = field("images/image", "sc:ImageObject", {**files, "extract": {"fileProperty": "content"}})
    return [pixels, key, *(found for found in fields(spec, told) if found["@id"] != key["@id"])]


def _classes(stats: DatasetStats) -> Node:
    """Return the record set of the classes, by their numbers in the dataset."""
    data = [
        {"classes/label": number, "classes/name": found.label, "classes/images": found.accepted}
        for number, found in enumerate(stats.classes)
    ]
    columns = [
        field("classes/label", "cr:Int64"),
        field("classes/name", "sc:Text"),
        field("classes/images", "cr:Int64"),
    ]
    return _record_set("classes", "classes/label", columns) | {"dataType": "sc:Enumeration", "data": data}


def _candidates(spec: ImagesSpec, source: Mapping[str, Any]) -> Node:
    found = [
        field(f"candidates/{one.name}", _TYPES[str(one.type)], column(source, one.name)) for one in schema(spec.kind)
    ]
    return _record_set("candidates", "candidates/key", found)


def fields(spec: ImagesSpec, source: Mapping[str, Any]) -> list[Node]:
    """Return a field for each of `contract.data.dataset_card.columns`, read from `source`."""
    types = {one.name: _TYPES[str(one.type)] for one in schema(spec.kind)}
    return [field(f"images/{name}", types[name], column(source, name)) for name in columns(spec)]


def column(source: Mapping[str, Any], name: str) -> Node:
    """Return the source of a field: a column of a file or of a file set."""
    return {**source, "extract": {"column": name}}


def field(id: str, data_type: str, source: Node | None = None) -> Node:
    """Return a field `<record set>/<name>`."""
    found = {"@type": "cr:Field", "@id": id, "name": id.partition("/")[2], "dataType": data_type}
    return found if source is None else {**found, "source": source}


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


def file_set(id: str, includes: str, suffix: str, description: str, **more: Any) -> Node:
    """Return a set of files that match the glob `includes`."""
    return {
        "@type": "cr:FileSet",
        "@id": id,
        "name": id,
        "description": description,
        "encodingFormat": _FORMATS[suffix],
        "includes": includes,
        **more,
    }
