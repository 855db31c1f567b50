"""Makes jobs and follows them. It imports `contract` only: a laptop without torch is enough.

from producer import Client

job = Client().classify("photos", model="efficientnet-lite0")

`HttpClient` has the same methods over the HTTP API, for those who have a token in place of the keys of Redis and the
bucket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Client
    from producer.http_client import HttpClient

__all__ = ["Client", "HttpClient"]


def __getattr__(name: str) -> Any:
    # Late, so that `imagemill --help` loads neither celery nor pydantic.
    if name == "Client":
        from producer.client import Client

        return Client
    if name == "HttpClient":
        from producer.http_client import HttpClient

        return HttpClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
