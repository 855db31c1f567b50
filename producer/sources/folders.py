"""Walks local folders in an order that is the same each time, and finds the sequences in them.

It knows nothing of stores and jobs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from contract.data.items import folder_label, is_image_name
from contract.data.sequences import by_folder
from contract.errors import InvalidSource

_Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file on this machine; `size` in bytes, None where it cannot be read now.

    `label` is the class that the source says it has.
    """

    key: str
    path: str
    size: int | None
    label: str | None = None

    @property
    def uri(self) -> str:
        """`file:///…`, percent-encoded from the bytes of the name, so that every name survives."""
        return Path(self.path).as_uri()


@dataclass(frozen=True, slots=True)
class LocalSequence:
    """A sequence of `length` files on this machine, of which `frames` are looked at: none where there are too many.

    `uri` is that of its folder, with a slash at the end, or of the row that lists it.
    """

    key: str
    uri: str
    frames: tuple[LocalFile, ...]
    length: int
    label: str | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the frames that are looked at; None where one cannot be read now."""
        sizes = [frame.size for frame in self.frames if frame.size is not None]
        return sum(sizes) if self.frames and len(sizes) == len(self.frames) else None


Local = LocalFile | LocalSequence


def images(folder: Path, frames: int = 0) -> Iterator[Local]:
    """Every image below `folder`, each with the folder that it is in as its label.

    With `frames` each is a sequence instead: an animation, or the still images of one folder, of which at most so many
    are looked at. Raises what `walk` raises.
    """
    files = (file for file in walk(folder) if is_image_name(file.key))
    # By path and not by key: two names that are no UTF-8 may have one key.
    for found in by_folder(files, lambda file: file.path) if frames else files:
        if isinstance(found, LocalFile):
            yield replace(found, label=folder_label(found.key))
            continue
        chosen = tuple(found.frames(frames))
        path = _text(found.path.removeprefix(os.path.join(folder, "")))
        yield LocalSequence(
            key=path or "./",
            uri=f"{Path(found.path).as_uri()}/",
            frames=chosen,
            length=found.length,
            label=folder_label(path),
        )


def walk(folder: Path) -> Iterator[LocalFile]:
    """Every file below `folder`, sorted by key; `folder` must be absolute.

    A key is the path from `folder`, with `/` between its parts. Hidden folders are left out, hidden
    files are not. Links are followed, except into a folder that the walk is in. Raises InvalidSource
    where a folder cannot be listed: images would be missing without a word.
    """
    for key, entry in _walk(os.fspath(folder), "", frozenset({_inode(folder.stat())}), _fail):
        if _is_file(entry):
            yield local_file(key, entry.path)


def paths(folder: Path, unlisted: Callable[[str, OSError], None]) -> Iterator[str]:
    """Yield the path of everything below `folder` that is no folder, in the order of `walk`: pipes and dead links too.

    A folder that cannot be listed is told to `unlisted`, by its path, and left out. Raises OSError if there is no
    `folder`.
    """
    for _, entry in _walk(os.fspath(folder), "", frozenset({_inode(folder.stat())}), unlisted):
        yield entry.path


def _fail(folder: str, error: OSError) -> None:
    raise InvalidSource(f"The folder {folder} cannot be listed: {error.strerror}.") from error


def local_file(key: str, path: str) -> LocalFile:
    """The file at an absolute path, as it is now."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return LocalFile(key, path, None)
    return LocalFile(key, path, found.st_size if stat.S_ISREG(found.st_mode) else None)


def _walk(
    folder: str, prefix: str, above: frozenset[_Inode], unlisted: Callable[[str, OSError], None]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as found:
            entries = [(entry, _is_folder(entry)) for entry in found]
    except OSError as error:
        unlisted(folder, error)
        return
    # A folder sorts as its keys do, with the slash, so that the walk is in the order of whole keys.
    for entry, is_folder in sorted(entries, key=lambda e: e[0].name + "/" * e[1]):
        if not is_folder:
            yield _text(prefix + entry.name), entry
        elif not entry.name.startswith("."):
            inode = _inode(entry.stat())
            if inode not in above:
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {inode}, unlisted)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Sockets and pipes are no files; a dead link is a file that cannot be read."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def _inode(found: os.stat_result) -> _Inode:
    return found.st_dev, found.st_ino


def _text(name: str) -> str:
    """Return a file name as valid Unicode; bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
