"""The folder that a data set is written to: whose it is, and files that appear when they are whole.

It knows no format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidInput
from producer.exports.images.croissant import DataFile

OWNER = ".imagemill-export"


class Target:
    """A folder of one export. What is written into it again replaces what was there.

    Raises InvalidInput where the folder has files that are not of this export: they would be taken for generated.
    """

    def __init__(self, folder: Path, job: str, format: str) -> None:
        self.folder = folder
        self._owner = json.dumps({"job": job, "format": format}) + "\n"
        if folder.exists() and not folder.is_dir():
            raise InvalidInput(f"{folder} is a file; name a folder with -o.")
        mark = folder / OWNER
        # The mark alone is what an export leaves that was refused.
        used = folder.exists() and any(path != mark for path in folder.iterdir())
        if used and not self._owns(mark):
            raise InvalidInput(
                f"{folder} is not empty and holds no export of {job} as {format}; name a new folder, so that no other "
                "file is taken for one of this data set."
            )
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(self._owner, "utf-8")

    def _owns(self, mark: Path) -> bool:
        return mark.is_file() and mark.read_text("utf-8") == self._owner

    def path(self, name: str) -> Path:
        return self.folder / name

    @contextmanager
    def writing(self, *names: str) -> Iterator[list[BinaryIO]]:
        """Open files; they get their names together when all are whole, and leave nothing behind otherwise."""
        parts = [self.part(name) for name in names]
        try:
            with ExitStack() as stack:
                yield [stack.enter_context(part.open("wb")) for part in parts]
            for part, name in zip(parts, names, strict=True):
                part.replace(self.path(name))
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Write one small file."""
        with self.writing(name) as (file,):
            file.write(data)

    def part(self, name: str) -> Path:
        """Where a file is until it is whole; its folder is made."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.part")

    def entry(self, name: str) -> DataFile:
        """A file that is there, for the metadata."""
        path = self.path(name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return DataFile(name, digest, path.stat().st_size)
