"""Generated images as a tree that Hugging Face `datasets` loads with `load_dataset("imagefolder")`.

DIR/train/<class>/<key>.png      the images, one folder a class
DIR/train/metadata.jsonl         file_name and what is known of each: written last
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from contract.data.dataset_card import Layout, image_suffix, python
from contract.jobs.specs import ImagesSpec
from producer.exports.folder_names import FolderNames
from producer.exports.images.accepted import ImageSet, metadata
from producer.exports.images.croissant import DataFile, Records, column, field, file_set, joined
from producer.exports.images.target import Target

METADATA = "train/metadata.jsonl"
LAYOUT = Layout(
    name="imagefolder",
    load=python('from datasets import load_dataset\n\nimages = load_dataset("imagefolder", data_dir="DIR")'),
    columns=f"They are in `{METADATA}`, with `file_name`, the image's path from there.",
    data_files="train/**",
)


def write(images: ImageSet, target: Target, done: Callable[[int], None]) -> list[str]:
    """Write every image, then the metadata; return the names of the files that are not images."""
    names = FolderNames()
    # Name the folders in the order of the classes, so that they do not depend on which image comes first.
    folders = {found.index: names.of(found.label, found.index) for found in images.stats.classes}
    suffix = image_suffix(images.spec)
    with target.writing(METADATA) as (lines,):
        for row, data in images.accepted():
            name = f"{folders[row['label_index']]}/{row['key']}{suffix}"
            target.write(f"train/{name}", data)
            line = {"file_name": name, **metadata(images.spec, row)}
            lines.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            done(1)
    return [METADATA]


def records(spec: ImagesSpec, files: Sequence[DataFile]) -> Records:
    """Say where Croissant finds images and their columns."""
    suffix, told = image_suffix(spec), {"fileObject": {"@id": METADATA}}
    sets = [file_set("image-files", f"train/*/*{suffix}", suffix, "The images, a folder a class.")]
    name = field("images/file_name", "sc:Text", column(told, "file_name"))
    return Records([*joined(spec, suffix, told), name], sets)
