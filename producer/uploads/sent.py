"""Remembers in a local file what was sent from a folder, and where to, so that a restart does not read it all again.

Nothing rests on it. Without it, or after a power cut that took the last lines, each file is compared with its object.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contract.errors import InvalidInput, InvalidSettings

_KEPT_SECONDS = 30 * 86_400
"""How long a file that is not in the folder is remembered: a network drive may come back."""


@dataclass(frozen=True, slots=True)
class Version:
    """A file as a look at it shows it; as with rsync, one whose size and time are the same is the same."""

    size: int
    mtime_ns: int


class SentFiles:
    """The files of one folder that were sent to one address, by their keys. Used by one process and one thread."""

    def __init__(self, path: Path) -> None:
        """Open or begin the record at `path`; raises InvalidInput if another process has it open."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=0)
        except (OSError, sqlite3.Error) as error:
            raise InvalidSettings(
                f"{path} cannot be written ({error}); set IMAGEMILL_STATE_DIR to a folder where what was uploaded is "
                "remembered."
            ) from error
        try:
            self._begin()
        except sqlite3.OperationalError as error:
            self._db.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise InvalidSettings(f"{path} cannot be written ({error}); delete it, or make room.") from error
            raise InvalidInput("Another process uploads this folder for this watch; stop that one first.") from error
        except sqlite3.DatabaseError:  # damaged: the bucket is compared instead
            self._db.close()
            path.unlink()
            self._db = sqlite3.connect(path, timeout=0)
            self._begin()

    @staticmethod
    def path(folder: Path, address: str, state_dir: Path) -> Path:
        """Return where the record of `folder` and the address that it is sent to lies."""
        name = hashlib.sha256(f"{address}\0{folder}".encode(errors="surrogateescape")).hexdigest()[:16]
        return state_dir.expanduser() / "uploads" / f"{name}.sqlite"

    def _begin(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # from the next statement until it is closed
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS sent "
            "(key TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, md5 BLOB, at INTEGER) WITHOUT ROWID"
        )
        self._db.commit()

    def version(self, key: str) -> Version | None:
        """Return the version of a file that was sent last, or None."""
        found = self._db.execute("SELECT size, mtime_ns FROM sent WHERE key = ?", (key,)).fetchone()
        return Version(*found) if found else None

    def md5(self, key: str) -> bytes | None:
        """Return the digest of what was sent last, or None."""
        found = self._db.execute("SELECT md5 FROM sent WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def add(self, key: str, version: Version, md5: bytes) -> None:
        """Remember that the object `key` holds this version."""
        row = (key, version.size, version.mtime_ns, md5, int(time.time()))
        self._db.execute("INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?, ?)", row)

    def commit(self) -> None:
        """Write what was added."""
        self._db.commit()

    def forget(self, there: Collection[str]) -> None:
        """Forget files that were sent long ago and are not in the folder any more."""
        old = self._db.execute("SELECT key FROM sent WHERE at < ?", (int(time.time()) - _KEPT_SECONDS,))
        gone = [(key,) for (key,) in old if key not in there]
        self._db.executemany("DELETE FROM sent WHERE key = ?", gone)
        self._db.commit()

    def close(self) -> None:
        """Write what was added, and let others open the record."""
        with suppress(sqlite3.Error):
            self._db.commit()
        self._db.close()
