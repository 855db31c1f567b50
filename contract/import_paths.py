"""Import paths: how a record in `contract` names code of the producer or of a worker without importing it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

ImportPath: TypeAlias = str
"""Where a function or a class is defined, as `package.module:name`."""


def load(path: ImportPath) -> Callable[..., Any]:
    """Import what is at `package.module:name`; raises ImportError if nothing is."""
    module, _, name = path.partition(":")
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"{module} has no {name}") from error
    return found
