"""The HTTP API of an embedded stack: its process on a port of loopback, and the token that lets its owner in.

The token is kept in `DATA/api-token` for scripts, and in `stack.json` for `HttpClient`, readable by the owner alone;
the bucket has its hash.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError
from contract.settings import Settings
from contract.web.tokens import Token, Tokens, describe
from deploy.local import ports
from deploy.local.private import write_private
from deploy.local.supervisor import Service

log = logging.getLogger(__name__)

WEB = "web"
TOKEN_FILE = "api-token"
_READY_SECONDS = 60.0
_NEEDS = ("fastapi", "jinja2", "python_multipart", "uvicorn")


def can_serve() -> bool:
    """Return whether what the HTTP API needs is installed, as `imagemill[web]` does."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDS)


def service(port: int, env: Mapping[str, str], cwd: Path) -> Service:
    """Return the process that serves the API."""
    return Service(
        name=WEB,
        command=[sys.executable, "-m", "producer", "web", "--host", ports.LOOPBACK, "--port", str(port)],
        env=dict(env),
        cwd=cwd,
        ready=lambda: _answers(port),
        ready_seconds=_READY_SECONDS,
        stop_order=0,
    )


def let_in(store: ObjectStore, data: Path, text: str, settings: Settings) -> None:
    """Write the token to the data folder, and its hash to the bucket; a store that refuses that has no such token."""
    token: Token = describe(text, owner=settings.owns_as, scopes=("admin",))
    write_private(data / TOKEN_FILE, f"{text}\n")
    try:
        Tokens(store).put(token)
    except ImagemillError as error:
        log.warning("The token in %s is of no use: %s", data / TOKEN_FILE, error)


def url_of(port: int) -> str:
    return f"http://{ports.LOOPBACK}:{port}"


def _answers(port: int) -> bool:
    with suppress(OSError, HTTPException), urllib.request.urlopen(f"{url_of(port)}/livez", timeout=1) as answer:
        return bool(answer.status == 200)
    return False
