"""The embedded stack of a bench, driven through its commands, as a user would."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from contract import settings as configuration
from contract.backend.objects import ObjectStore

_OURS = ("IMAGEMILL_REDIS", "IMAGEMILL_ONLINE_REDIS", "IMAGEMILL_S3", "IMAGEMILL_API")
"""Settings that would lead to another stack."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Commands:
    """Runs `imagemill` commands on a stack.

    They may write `.pyc` files even where the environment forbids it: a figure should hold no compilation of sources,
    which whoever installs the product has once.
    """

    supervisor = 0
    """The process that the stack's own are children of, once it runs."""

    def __init__(self, data: Path) -> None:
        self._program = Path(sys.executable).with_name("imagemill")
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_OURS) and name != "PYTHONDONTWRITEBYTECODE"
        } | {"IMAGEMILL_DATA": str(data)}

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """Return the JSON that a command prints; raises CalledProcessError where it fails."""
        done = subprocess.run(
            [self._program, *arguments, "--json"], env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@contextmanager
def stack(base: Path, workers: int = 1) -> Iterator[Commands]:
    """Run a stack with its data in `base`, and stop it at the end, or when a signal ends this process."""
    base.mkdir(exist_ok=True)
    imagemill = Commands(base / "stack")
    say("starting a stack …")
    with _signals_raise():
        try:
            imagemill.supervisor = imagemill("up", "--workers", str(workers), "--detach")["pid"]
            yield imagemill
        finally:
            # A second Ctrl-C must not keep it from stopping.
            if threading.current_thread() is threading.main_thread():
                for number in _ENDING:
                    signal.signal(number, signal.SIG_IGN)
            imagemill("down")


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let a signal that asks to end raise KeyboardInterrupt, so that the stack is stopped on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only there they raise
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def compiles_each_time() -> bool:
    """Return whether no `.pyc` lies beside the sources, so that each process compiles them when it starts."""
    return not Path(importlib.util.cache_from_source(configuration.__file__)).exists()


def upload(store: ObjectStore, files: Sequence[Path], base: Path, *, objects: bool, under: str = "bench") -> None:
    """Upload the photos in tars of 1,000 to `<under>/tars/`, and with `objects` also each to `<under>/objects/`."""
    if objects:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda f: store.put(f"{under}/objects/{f.name}", f.read_bytes()), files))
    for first in range(0, len(files), 1000):
        path = base / f"photos-{first // 1000:04d}.tar"
        with tarfile.open(path, "w") as tar:
            for file in files[first : first + 1000]:
                tar.add(file, arcname=file.name)
        store.put_file(f"{under}/tars/{path.name}", path)
        path.unlink()


def job(imagemill: Commands, *command: str) -> Callable[[], float]:
    """Return a function that runs this command and returns its items per second, start to end."""

    def measure() -> float:
        job = imagemill(*command)
        began, ended = (datetime.fromisoformat(job[key]) for key in ("created_at", "finished_at"))
        return float(job["done"]) / (ended - began).total_seconds()

    return measure


def say(text: str) -> None:
    """Tell what is going on, on stderr."""
    print(text, file=sys.stderr, flush=True)
