"""Label, generate and train on images in bulk: the public Python API.

from imagemill import Client

job = Client().classify("photos", model="efficientnet-lite0")

The package is a face: it offers what `producer` offers, under the name that the project is installed by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import producer

if TYPE_CHECKING:
    from producer import Client, HttpClient

__all__ = ["Client", "HttpClient"]


def __getattr__(name: str) -> Any:
    # Late, since only `HttpClient` needs what the extra `http` installs.
    if name in __all__:
        return getattr(producer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
