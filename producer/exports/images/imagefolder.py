"""Generated images as a tree that Hugging Face `datasets` loads with `load_dataset("imagefolder")`.

DIR/train/<class>/<key>.png      the images, one folder a class
DIR/train/metadata.jsonl         file_name and what is known of each: written last
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from contract.data.dataset_card import FOLDER_METADATA, image_suffix
from contract.data.dataset_stats import DatasetStats
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec
from producer.exports.images.accepted import metadata
from producer.exports.images.target import Target
from producer.exports.labels_imagefolder import FolderNames


def write(
    spec: ImagesSpec,
    stats: DatasetStats,
    images: Iterable[tuple[Row, bytes]],
    target: Target,
    done: Callable[[int], None],
) -> list[str]:
    """Write every image, then the metadata; returns the names of the files that are not images."""
    names = FolderNames()
    # In the order of the classes, not of the images: the same folders whichever image comes first.
    folders = {found.index: names.of(found.label, found.index) for found in stats.classes}
    suffix = image_suffix(spec)
    with target.writing(FOLDER_METADATA) as (lines,):
        for row, data in images:
            name = f"{folders[row['label_index']]}/{row['key']}{suffix}"
            target.write(f"train/{name}", data)
            lines.write(json.dumps({"file_name": name, **metadata(spec, row)}, ensure_ascii=False).encode() + b"\n")
            done(1)
    return [FOLDER_METADATA]
