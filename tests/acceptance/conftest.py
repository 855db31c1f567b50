"""The commands as a newcomer types them: real processes, a real stack, nothing imported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PHOTOS
from tests.gate import Gate, closed_gate
from tests.mill import OPEN

IMAGEMILL = Path(sys.executable).parent / "imagemill"
MODEL = "efficientnet-lite0"
DOCUMENTED = {
    *("id", "kind", "state", "total", "done", "ok", "errors", "shards", "images_per_second", "eta_seconds"),
    *("created_at", "started_at", "finished_at", "output", "model"),
}


@dataclass(frozen=True)
class Shell:
    """A terminal whose `IMAGEMILL_DATA` is set; it stands in a folder of its own."""

    data: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        web = {f"IMAGEMILL_{name.upper()}": value for name, value in OPEN.items()}
        return {**os.environ, **web, "IMAGEMILL_FETCH_SECONDS": "600", "IMAGEMILL_DATA": str(self.data)}

    def __call__(
        self, *args: object, code: int = 0, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `imagemill …`, and expect this exit code."""
        done = subprocess.run(
            [IMAGEMILL, *map(str, args)],
            cwd=self.folder,
            env={**self.environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,  # more than `up` allows itself
            check=False,
        )
        assert done.returncode == code, f"imagemill {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: object, code: int = 0) -> list[Any]:
        """Run `imagemill … --json`, and read all of stdout as one JSON object a line."""
        return [json.loads(line) for line in self(*args, "--json", code=code).stdout.splitlines()]

    def start(self, *args: object) -> subprocess.Popen[str]:
        """Begin `imagemill …` and leave it running."""
        return subprocess.Popen(
            [IMAGEMILL, *map(str, args)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background has them, and their children, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def processes(data: Path) -> dict[int, str]:
    """Every process that names the data folder in its command or its environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(data).encode() in words + variables and int(entry.name) != os.getpid():
            found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


@contextmanager
def workers_asleep(shell: Shell) -> Iterator[None]:
    """Stops the workers in their tracks, so that no job is over before it can be disturbed."""
    pids = [pid for pid, words in processes(shell.data).items() if re.search(r"worker-\d@", words)]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="package")
def imagemill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with a stack of two workers, up."""
    shell = Shell(tmp_path_factory.mktemp("stack") / "data", tmp_path_factory.mktemp("here"))
    shell("up", "--detach", "--workers", 2, "--data", shell.data)
    yield shell
    shell("down")
    assert not processes(shell.data)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes a folder of so many photos."""
    files: Sequence[Path] = sorted(PHOTOS.glob("*.jpg"))

    def make(count: int) -> Path:
        made = tmp_path_factory.mktemp("photos")
        for n in range(count):
            (made / f"{n:05d}.jpg").symlink_to(files[n % len(files)])
        return made

    return make


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A web server whose photos may be held back."""
    with closed_gate(sorted(PHOTOS.glob("*.jpg"))) as made:
        yield made


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three photos and two broken files."""
    made = tmp_path / "mixed"
    made.mkdir()
    for name in ("espresso", "koala", "polar-bear"):
        (made / f"{name}.jpg").write_bytes((PHOTOS / f"{name}.jpg").read_bytes())
    (made / "empty.jpg").write_bytes(b"")
    (made / "text.jpg").write_bytes(b"no image")
    return made
