"""The registry of output formats: one line a format, one module behind each.

`imagemill results --format`, `imagemill export --format`, the `Client` and the generated reference read it. A new
format is a module in `labels/` or `images/` and a line here. Listing the formats imports none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from contract.errors import InvalidInput

Writes = Literal["text", "file", "folder"]
"""What an exporter writes to: an open text stream, one binary file, or a folder of files."""


@dataclass(frozen=True)
class Format:
    """An output format: its name, the module that writes it, and one clause for `--help`."""

    name: str
    module: str
    writes: Writes
    about: str

    def load(self) -> Any:
        """Import the module that writes the format."""
        return importlib.import_module(self.module)


def _registry(*formats: Format) -> Mapping[str, Format]:
    return {one.name: one for one in formats}


LABELS = _registry(
    Format("jsonl", "producer.exports.labels.jsonl", "text", "one JSON object a line"),
    Format("csv", "producer.exports.labels.csv", "text", "a header and a line for each row"),
    Format("parquet", "producer.exports.labels.parquet", "file", "one file, with embeddings if the job has them"),
    Format("imagefolder", "producer.exports.labels.imagefolder", "folder", "the images too, for Hugging Face datasets"),
    Format("labelstudio", "producer.exports.labels.labelstudio", "text", "tasks with predictions"),
)
"""Formats of labelled rows. Each module is a `producer.exports.labels.export.LabelExporter`."""

IMAGES = _registry(
    Format("webdataset", "producer.exports.images.webdataset", "folder", "tar shards with a Parquet index"),
    Format(
        "imagefolder", "producer.exports.images.imagefolder", "folder", "a folder a class, for Hugging Face datasets"
    ),
    Format("idx", "producer.exports.images.idx", "folder", "the format of MNIST, for gray images of one size"),
    Format("parquet", "producer.exports.images.parquet", "folder", "one file, for Hugging Face datasets"),
)
"""Formats of generated images. Each module is a `producer.exports.images.export.ImageExporter`."""


def find(formats: Mapping[str, Format], name: str) -> Format:
    """Return the format called `name`; raise InvalidInput if there is none."""
    if name not in formats:
        raise InvalidInput(f"There is no format {name!r}; choose one of {', '.join(formats)}.")
    return formats[name]


def help_text(formats: Mapping[str, Format]) -> str:
    """Return one sentence for `--help` that says what each format is."""
    return "; ".join(f"{one.name}: {one.about}" for one in formats.values()) + "."
