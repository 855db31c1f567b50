"""The folder that a dataset is written to. Its files appear once they are complete. It knows no format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from contract.errors import InvalidInput
from contract.paths import create, inside
from producer.exports.images.croissant import DataFile

OWNER = ".imagemill-export"


class Target:
    """The folder of one export; writing a file again replaces it.

    Raises InvalidInput if the folder has files of anything else, which could be mistaken for generated images.
    """

    def __init__(self, folder: Path, job: str, format: str) -> None:
        self.folder = folder
        self._owner = json.dumps({"job": job, "format": format}) + "\n"
        if folder.exists() and not folder.is_dir():
            raise InvalidInput(f"{folder} is a file; name a folder with -o.")
        mark = folder / OWNER
        # An export that was refused leaves the mark alone.
        used = folder.exists() and any(path != mark for path in folder.iterdir())
        if used and not self._owns(mark):
            raise InvalidInput(
                f"{folder} is not empty and holds no export of {job} as {format}; name a new folder, so that no other "
                "file is mistaken for part of this dataset."
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.write(OWNER, self._owner.encode())

    def _owns(self, mark: Path) -> bool:
        return mark.is_file() and mark.read_text("utf-8") == self._owner

    def path(self, name: str) -> Path:
        """Return the path of a file; raises InvalidInput if its name, or a link in the folder, leads out of it."""
        return inside(self.folder, name)

    @contextmanager
    def writing(self, *names: str) -> Iterator[list[BinaryIO]]:
        """Open files that get their names together once all are complete; on an error none of them remains."""
        parts = [self.part(name) for name in names]
        try:
            with ExitStack() as stack:
                yield [stack.enter_context(create(part)) for part in parts]
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
        """Return the temporary path of a file, and make its folder."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.part")

    def entry(self, name: str) -> DataFile:
        """Return the metadata entry of a written file."""
        path = self.path(name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return DataFile(name, digest, path.stat().st_size)
