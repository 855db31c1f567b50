"""A worker whose name server is the attacker's: names lead inside, at once or at the second question."""

from __future__ import annotations

import itertools
import socket
from collections import defaultdict
from typing import Any

from worker.app import app

INSIDE = "127.0.0.1"
METADATA = "169.254.169.254"
PUBLIC = "192.0.43.8"  # global, and reachable from no machine of a test

_getaddrinfo = socket.getaddrinfo
_asked: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)


def _answer(host: str) -> list[str] | None:
    name = host.rstrip(".").lower()
    if name in ("inside.test", "public.test", "localhost"):
        return [INSIDE]
    if name == "metadata.test":
        return [METADATA]
    if name == "mixed.test":
        return [PUBLIC, INSIDE]
    if name.endswith(".rebind.test"):
        return [PUBLIC] if next(_asked[name]) == 0 else [INSIDE]
    return None


def _attacked(host: Any, port: Any, *args: Any, **options: Any) -> Any:
    found = _answer(host) if isinstance(host, str) else None
    if found is None:
        return _getaddrinfo(host, port, *args, **options)
    return [entry for one in found for entry in _getaddrinfo(one, port, *args, **options)]


socket.getaddrinfo = _attacked

__all__ = ["app"]
