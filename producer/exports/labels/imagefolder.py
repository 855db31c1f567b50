"""Labelled images as a folder that Hugging Face `datasets` loads with `load_dataset("imagefolder")`.

    DIR/<label>/<file name>      the images, one folder a label
    DIR/metadata.jsonl           file_name, label, score, key: written last

The rules: https://huggingface.co/docs/datasets/image_dataset. Failures are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from contract.data.items import IMAGE_SUFFIXES, Item
from contract.data.label_rows import ERROR
from contract.errors import ImageNotFound, InvalidInput
from contract.jobs.results import Row
from contract.paths import write_inside
from producer.exports.folder_names import FolderNames, safe
from producer.exports.labels.source import Labels, rounded

METADATA = "metadata.jsonl"
_THREADS = 8
_MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF8", ".gif"),
    (b"RIFF", ".webp"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)


def write(labels: Labels, folder: Path) -> tuple[int, int]:
    """Write each image below `folder`; return how many were written and how many rows were left out.

    Failures are left out, and so are images that are gone or whose sha256 is no longer the labelled one. Raises
    InvalidInput if the folder already has files.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(
            f"{folder} is not empty; name a new folder, so that no other file is taken for a labelled image."
        )
    folder.mkdir(parents=True, exist_ok=True)
    names = FolderNames()
    written = left_out = 0
    # Metadata gets its name last: a folder without it is not mistaken for a complete data set.
    partial = folder / f".{METADATA}.part"
    with partial.open("w", encoding="utf-8") as metadata, ThreadPoolExecutor(_THREADS) as pool:
        for shard in labels.shards():
            labelled = [
                (row, item, names.of(row["label"], int(row["label_index"])))
                for row, item in shard
                if row["status"] != ERROR
            ]
            left_out += len(shard) - len(labelled)
            for line in pool.map(lambda found: _save(folder, labels.read, *found), labelled):
                if line is None:
                    left_out += 1
                else:
                    metadata.write(json.dumps(line, ensure_ascii=False) + "\n")
                    written += 1
    partial.replace(folder / METADATA)
    return written, left_out


def file_name(row: Row, data: bytes) -> str:
    """Return a name that is unique in its folder: the stem of the key and a hash of the `uri`.

    If the key has no image suffix, the content decides it, because `datasets` selects files by suffix.
    """
    path = PurePosixPath(row["key"])
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        suffix = next((s for magic, s in _MAGIC if data.startswith(magic)), ".jpg")
    return f"{safe(path.stem)}-{hashlib.sha256(row['uri'].encode()).hexdigest()[:8]}{suffix}"


def _save(folder: Path, read: Callable[[Item], bytes], row: Row, item: Item, label: str) -> dict[str, Any] | None:
    """Write one image; return its line of metadata, or None if it is not the image that was labelled."""
    try:
        data = read(item)
    except ImageNotFound:
        return None
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        return None
    name = f"{label}/{file_name(row, data)}"
    with write_inside(folder, name) as file:
        file.write(data)
    return {"file_name": name, "label": row["label"], "score": rounded(row["score"]), "key": row["key"]}
