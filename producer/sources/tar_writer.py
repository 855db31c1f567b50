"""Writes one tar of local files and sequences and says where in it each file's bytes are. It knows no store.

The headers are made by `tarfile` and laid out here, because the offsets are wanted, and because a
file that shrinks or breaks off while it is read must leave no half member behind.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from contract.data.items import Item
from contract.data.sequences import MAX_IMAGES
from producer.sources.folders import Local, LocalFile, LocalSequence

_CHUNK = 2**20
_BLOCK = tarfile.BLOCKSIZE


def write_tar(
    files: Iterable[Local], path: Path, address: str, *, max_bytes: int, done: Callable[[], None]
) -> list[Item]:
    """Pack `files` into the tar at `path` and return one item a file or sequence, in order.

    `address` is the `s3://` address that the tar will have. A file larger than `max_bytes` gets an
    item with its size alone, a file that cannot be read one with neither: a worker makes an error row
    of each. The same goes for a frame, and for a sequence whose frames are too large together. `done` is called
    after each item.
    """
    items = []
    with path.open("wb") as tar:
        for file in files:
            if isinstance(file, LocalSequence):
                items.append(_add_sequence(tar, file, address, max_bytes))
            else:
                items.append(_add(tar, file, address, max_bytes))
            done()
        tar.write(bytes(2 * _BLOCK))
    return items


def _add_sequence(tar: BinaryIO, sequence: LocalSequence, address: str, max_bytes: int) -> Item:
    size = sequence.size
    if size is not None and size > MAX_IMAGES * max_bytes:
        return Item(sequence.key, sequence.uri, size=size, label=sequence.label, length=sequence.length)
    frames = [_add(tar, frame, address, max_bytes) for frame in sequence.frames]
    return Item.of_frames(sequence.key, sequence.uri, frames, length=sequence.length, label=sequence.label)


def _add(tar: BinaryIO, file: LocalFile, address: str, max_bytes: int) -> Item:
    unreadable = Item(key=file.key, uri=file.uri, label=file.label)
    if file.size is None:
        return unreadable
    start = tar.tell()
    # Opened apart from its use: an error of reading makes a row, one of writing the tar ends the packing.
    try:
        source = open(file.path, "rb")  # noqa: SIM115
    except OSError:
        return unreadable
    with source:
        found = os.fstat(source.fileno())
        if found.st_size > max_bytes:
            return Item(key=file.key, uri=file.uri, size=found.st_size, label=file.label)
        info = tarfile.TarInfo(file.key)
        info.size, info.mtime = found.st_size, int(found.st_mtime)
        # PAX, so that names may be long and in any script.
        tar.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        offset = tar.tell()
        if not _copy(source, tar, found.st_size):
            tar.seek(start)
            tar.truncate()
            return unreadable
    tar.write(bytes(-found.st_size % _BLOCK))
    return Item(file.key, file.uri, size=found.st_size, tar=address, offset=offset, label=file.label)


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> bool:
    """Copy `size` bytes; False where the source does not have them any more."""
    while size:
        try:
            data = source.read(min(size, _CHUNK))
        except OSError:
            return False
        if not data:
            return False
        target.write(data)
        size -= len(data)
    return True
