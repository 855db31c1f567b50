"""Reads the headers of tars that anybody may have written: bounded in memory, and sure to come to an end.

`tarfile` believes what a header says: it reads a name of four gigabytes into memory, and goes back in the file for a
negative size. It is kept behind a file that refuses both.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

MAX_HEADER_BYTES = 2**20
"""The most bytes of a member's headers, extended ones included; GNU tar and Python write less than 10 kB."""
MAX_NAME = 4096
"""The longest name of a member in characters, which is also the longest path on Linux (PATH_MAX)."""

_FOREIGN = (tarfile.TarError, ArithmeticError, LookupError, ValueError, TypeError, EOFError, RecursionError)
"""What `tarfile` raises over damaged headers."""


class Tar:
    """The regular files in an uncompressed tar of `size` bytes, read once from its start to its end.

    Every method raises `tarfile.ReadError`, and nothing else, for bytes that are not a tar.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = _Headers(file, size)
        self._size = size
        self.whole = False
        """Whether the archive was read to the zeros at its end; without them `tarfile` stops as if all were well."""

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yield each regular file; a truncated one too."""
        try:
            with tarfile.open(fileobj=cast("BinaryIO", self._file), mode="r:") as tar:
                before = -1
                while (member := self._next(tar)) is not None:
                    if member.size < 0 or member.offset_data <= before:
                        raise tarfile.ReadError("a member has a negative size")
                    if len(member.name) > MAX_NAME:
                        raise tarfile.ReadError(f"a member's name has more than {MAX_NAME:,} characters")
                    before = member.offset_data
                    if member.isreg():
                        yield member
                self.whole = tar.offset + tarfile.BLOCKSIZE <= self._size
        except tarfile.ReadError:
            raise
        except _FOREIGN as error:
            raise tarfile.ReadError(str(error) or type(error).__name__) from error

    def read(self, member: tarfile.TarInfo, limit: int) -> bytes | None:
        """Return the bytes of a member, or None if it has more than `limit`."""
        if member.size > limit:
            return None
        self._file.grant(limit)
        self._file.seek(member.offset_data)
        return self._file.read(member.size)

    def _next(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        self._file.grant(MAX_HEADER_BYTES)
        member = tar.next()
        # It keeps every member: 1.2 GB of a million.
        tar.members.clear()  # type: ignore[attr-defined]
        return member


class _Headers:
    """A file of which at most `grant` bytes are read between two grants, none of them by a negative size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._left = file, size, MAX_HEADER_BYTES

    def grant(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER_BYTES:,} bytes")
        self._left -= size
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        if offset < 0:
            raise tarfile.ReadError("a header points before the start of the archive")
        return self._file.seek(min(offset, self._size))

    def tell(self) -> int:
        return self._file.tell()
