"""Writes labelled images as a tree that Hugging Face `datasets` loads with `load_dataset("imagefolder")`.

    DIR/<label>/<file name>      the images, one folder a label
    DIR/metadata.jsonl           file_name, label, score, key: written last

See https://huggingface.co/docs/datasets/image_dataset for the rules. It knows rows and bytes, not how
a job was run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from contract.data.items import IMAGE_SUFFIXES, Item
from contract.data.label_rows import ERROR
from contract.errors import ImageNotFound, InvalidInput
from contract.jobs.results import Row
from producer.exports.labels import rounded

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

Shard = list[tuple[Row, Item]]


def write(shards: Iterable[Shard], folder: Path, read: Callable[[Item], bytes]) -> tuple[int, int]:
    """Write the images of `shards` below `folder`; returns how many were written and how many left out.

    Left out are failures, and images that are gone or are not the ones that were labelled (by their
    sha256). Raises InvalidInput where the folder has files already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty; name a new folder, so that no other image is taken for labelled.")
    folder.mkdir(parents=True, exist_ok=True)
    names = FolderNames()
    written = left_out = 0
    # Under another name until it is whole: without metadata the folder is no data set.
    partial = folder / f".{METADATA}.part"
    with partial.open("w", encoding="utf-8") as metadata, ThreadPoolExecutor(_THREADS) as pool:
        for shard in shards:
            labelled = [
                (row, item, names.of(row["label"], int(row["label_index"])))
                for row, item in shard
                if row["status"] != ERROR
            ]
            left_out += len(shard) - len(labelled)
            for line in pool.map(lambda found: _save(folder, read, *found), labelled):
                if line is None:
                    left_out += 1
                else:
                    metadata.write(json.dumps(line, ensure_ascii=False) + "\n")
                    written += 1
    partial.replace(folder / METADATA)
    return written, left_out


class FolderNames:
    """A folder name for each label. Some labels of ImageNet are spelled alike (`crane`, bird and machine), others
    become so when they are made safe (`a/b`, `a:b`): all but the first get their number behind their name."""

    def __init__(self) -> None:
        self._owner: dict[str, int] = {}

    def of(self, label: str, index: int) -> str:
        """The folder of a label."""
        name = safe(label)
        # Lower case: some file systems do not tell `Crane` from `crane`. Again, where a label is called `crane-517`.
        while self._owner.setdefault(name.lower(), index) != index:
            name = f"{name}-{index}"
        return name


def safe(name: str) -> str:
    """A name that every file system takes: letters, digits, `-`, `_`, blanks and inner dots."""
    return re.sub(r"[^\w\- .]+", "_", name).strip(" ._")[:100] or "unnamed"


def file_name(row: Row, data: bytes) -> str:
    """A name that is unique in its folder: the stem of the key, and a hash of the whole address.

    A key whose suffix is no image's gets the one of its content, for `datasets` goes by suffixes.
    """
    path = PurePosixPath(row["key"])
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        suffix = next((s for magic, s in _MAGIC if data.startswith(magic)), ".jpg")
    return f"{safe(path.stem)}-{hashlib.sha256(row['uri'].encode()).hexdigest()[:8]}{suffix}"


def _save(folder: Path, read: Callable[[Item], bytes], row: Row, item: Item, label: str) -> dict[str, Any] | None:
    """Write one image; its line of metadata, or None where it is not the image that was labelled."""
    try:
        data = read(item)
    except ImageNotFound:
        return None
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        return None
    name = f"{label}/{file_name(row, data)}"
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return {"file_name": name, "label": row["label"], "score": rounded(row["score"]), "key": row["key"]}
