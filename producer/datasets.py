"""What can be trained on: makes a source of what the user typed, and finds what is wrong with it before it is queued.

Beside the sources that can be labelled (`producer.sources`) there are IDX files and the labels of an earlier job. It
writes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from contract import lifecycle
from contract.errors import InvalidSource
from contract.items import is_image_name, parse_s3
from contract.objects import ObjectStore
from producer import sources
from producer.folders import walk
from producer.sources import Packed, Remote, Resolved, Upload

JOB = "job:"
_IDX = re.compile(r"[-.](images|labels)[-.]idx[13]-ubyte(\.gz)?$")


def resolve(text: str, store: ObjectStore) -> Resolved:
    """What `text` names: `job:ID`, IDX files in a folder or under a prefix, or whatever can be labelled.

    Raises InvalidSource where it is not there or holds nothing to learn from, UnknownJob for a job that is none.
    """
    if text.startswith(JOB):
        id = text.removeprefix(JOB)
        lifecycle.read_classify(store, id)
        return Remote("job", id, text)
    if text.startswith("s3://"):
        bucket, prefix = parse_s3(text)
        if store.bucket_exists(bucket) and any(_IDX.search(entry.key) for entry in store.list(prefix, bucket=bucket)):
            return Remote("idx", text, text)
        return sources.resolve(text, store)
    folder = Path(text).expanduser()
    if folder.is_dir():
        files = tuple(sorted(path.resolve() for path in folder.iterdir() if _IDX.search(path.name)))
        if files:
            return Upload("idx", text, files)
    found = sources.resolve(text, store)
    if isinstance(found, Packed) and folder.is_dir():
        _check_classes(folder, text)
    return found


def _check_classes(folder: Path, label: str) -> None:
    """A folder of class folders: every image in one, every one with images, two or more of them."""
    images: Counter[str] = Counter()
    for file in walk(folder):
        if is_image_name(file.key):
            parent = PurePosixPath(file.key).parent.name
            if not parent:
                raise InvalidSource(f"{file.key} of {label} is in no class folder; move it into the one of its class.")
            images[parent] += 1
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and not _holds(images, path):
            raise InvalidSource(f"The class folder {path.name!r} of {label} holds no images; fill it or remove it.")
    if len(images) < 2:
        raise InvalidSource(f"{label} has a single class, {next(iter(images))!r}; a model learns to tell two or more.")
    for name, count in sorted(images.items()):
        if count < 2:
            raise InvalidSource(
                f"The class {name!r} of {label} has one image; it needs two at least, one to learn from and one to "
                "hold out."
            )


def _holds(images: Counter[str], path: Path) -> bool:
    """Whether a folder, or one inside it, is a class that has images."""
    return path.name in images or any(child.name in images for child in path.rglob("*") if child.is_dir())
