"""Ways to ask for the label of one image: the online Redis, the HTTP API of a stack, and the HTTP API of LitServe."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.client import HTTPConnection
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from contract.backend.objects import ObjectStore
from contract.data.label_rows import ERROR
from contract.errors import Expired, OnlineFailed, Overloaded
from contract.online.ask import Online
from contract.settings import Settings
from worker.bench.clients import Ask

Body: TypeAlias = Callable[[bytes], bytes]
Check: TypeAlias = Callable[[Any], None]

_TIMEOUT = 60.0


@asynccontextmanager
async def redis(settings: Settings, model: str, deadline: float) -> AsyncIterator[Ask]:
    """Ask a served model through the online Redis, as `Client.classify_now` does."""
    async with Online(settings, ObjectStore(settings)) as online:

        async def ask(image: bytes) -> None:
            check_row((await online.classify(model, [image], deadline=deadline))[0])

        yield ask


@asynccontextmanager
async def http(url: str, headers: Mapping[str, str], body: Body, check: Check, clients: int) -> AsyncIterator[Ask]:
    """POST to an address, each client on a connection of its own that stays open.

    The standard library's client costs a machine that also runs the model less than an asynchronous one. `check`
    raises OnlineFailed for an answer that is no label.
    """
    address = urlsplit(url)
    local = threading.local()

    def post(image: bytes) -> None:
        connection: HTTPConnection | None = getattr(local, "connection", None)
        if connection is None:
            connection = local.connection = HTTPConnection(str(address.hostname), address.port, timeout=_TIMEOUT)
        path = address.path + (f"?{address.query}" if address.query else "")
        connection.request("POST", path, body(image), dict(headers))
        answer = connection.getresponse()
        data = answer.read()
        if answer.status == 503:
            raise Overloaded("refused", retry_after=float(answer.headers.get("Retry-After", 1)))
        if answer.status == 504:
            raise Expired("too late")
        if answer.status != 200:
            raise OnlineFailed(f"{url} answered {answer.status}: {data[:300].decode(errors='replace')}")
        check(json.loads(data))

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(clients, thread_name_prefix="http-client") as pool:

        async def ask(image: bytes) -> None:
            await loop.run_in_executor(pool, post, image)

        yield ask


def api(settings: Settings, model: str, clients: int) -> AbstractAsyncContextManager[Ask]:
    """Ask a served model through the HTTP API, with the image as the body."""
    headers = {
        "Authorization": f"Bearer {settings.api_token.get_secret_value()}",
        "Content-Type": "image/jpeg",
    }
    return http(f"{settings.api_url}/v1/models/{model}/classify", headers, bytes, check_row, clients)


def litserve(port: int, clients: int) -> AbstractAsyncContextManager[Ask]:
    """Ask `worker.bench.litserve_server`, which takes images in base64."""

    def body(image: bytes) -> bytes:
        return json.dumps({"image": base64.b64encode(image).decode()}).encode()

    headers = {"Content-Type": "application/json"}
    return http(f"http://127.0.0.1:{port}/predict", headers, body, check_row, clients)


def check_row(row: Mapping[str, Any]) -> None:
    """Raise OnlineFailed for a row without a label: the photos of a bench are sound."""
    if row.get(ERROR) or not row.get("top_k"):
        raise OnlineFailed(f"A photo has no label: {row.get(ERROR) or row}")
