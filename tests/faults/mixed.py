"""A worker that was upgraded in place: the modules that `MIXED` names fail to import, as long as that file is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

from worker.app import app

MIXED = "mixed"
"""A file in the folder of the cache; a module a line."""


class _Mixed(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        file = Path(os.environ["IMAGEMILL_CACHE_DIR"]) / MIXED
        if file.exists() and fullname in file.read_text().split():
            raise ImportError("cannot import name 'new' from 'contract.old'")


sys.meta_path.insert(0, _Mixed())

__all__ = ["app"]
