"""Keeps Pillow and libtiff out of the log: what is wrong with a file is an ImageError.

Pillow logs some errors before it raises them, and silences the warnings of libtiff but not its errors, which hold bytes
of the file. libtiff has no setting for it but a function, which Pillow does not export.
"""

from __future__ import annotations

import ctypes
import logging
from contextlib import suppress
from pathlib import Path

from PIL import _imaging  # noqa: F401, loads libtiff


def silence_pillow() -> None:
    """Turn off the log messages of Pillow."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)


def silence_libtiff() -> bool:
    """Turn off the messages of the libtiff in this process; return whether it was found."""
    for path in _loaded("libtiff"):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
                setter(None)
            return True
    return False


def _loaded(name: str) -> set[str]:
    """Return the paths of the libraries of this process whose file names begin with `name`."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return set()
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    return {path for path in paths if Path(path).name.startswith(name)}
