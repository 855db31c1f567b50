"""Starts LitServe in processes of its own, as a peer of the product's serving."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from contract.errors import WorkerUnfit
from contract.records import Precision
from worker.engine.types import Runtime

_READY_SECONDS = 180.0
_STOP_SECONDS = 20.0


def installed() -> bool:
    """Return whether LitServe can be imported."""
    return importlib.util.find_spec("litserve") is not None


@contextmanager
def running(weights: Path, precision: Precision, runtime: Runtime) -> Iterator[int]:
    """Run the server in processes of its own, and yield its port once it answers; `runtime` is what it will load."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    options: dict[str, Any] = {"port": port, "weights": weights, "precision": precision}
    if runtime.device == "cpu":
        options |= {"accelerator": "cpu", "processes": runtime.lanes}
    else:
        options |= {"accelerator": "cuda", "batch": runtime.batch_size}
    command = [sys.executable, "-m", "worker.bench.litserve_server"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with tempfile.TemporaryFile() as log:
        # In a group of its own: its children must end with it, also where it has no time to tell them.
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            _await(server, port, log)
            yield port
        finally:
            _end(server)


def _await(server: subprocess.Popen[bytes], port: int, log: Any) -> None:
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until and server.poll() is None:
        with (
            suppress(OSError, HTTPException),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.2)
    log.seek(0)
    raise WorkerUnfit(f"LitServe does not start: {log.read()[-2000:].decode(errors='replace')}")


def _end(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
