"""Makes jobs and follows them. It imports `contract` only: a laptop without torch is enough.

from producer import Client

job = Client().classify("photos", model="efficientnet-lite0")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    # Late, so that `imagemill --help` loads neither celery nor pydantic.
    if name == "Client":
        from producer.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
