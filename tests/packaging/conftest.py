"""The wheel, and a fresh virtual environment for each role that it is installed in.

Pip's cache makes a second run cheap. Torch is installed once, in the environment of the worker, which the roles
`local` and newcomer share.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.mill import ROOT

ROOMS = ("contract", "producer", "worker", "deploy")


@dataclass(frozen=True)
class Venv:
    """A virtual environment; commands run in `folder`, outside the checkout."""

    bin: Path
    folder: Path

    def run(self, program: str, *arguments: str, **variables: str) -> str:
        """Run a program of the environment and return its stdout; fail the test if it fails."""
        # Neither the checkout nor settings of the developer may leak in.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "IMAGEMILL_", "VIRTUAL_ENV"))}
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env={**kept, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program} {arguments}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, so that no earlier build leaks into it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), str(source)]
    subprocess.run(pip, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    (made,) = target.glob("imagemill-*.whl")
    return made


@pytest.fixture(scope="session")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Venv]:
    """Makes a fresh environment with the wheel and these extras: "", "control", "worker,local"."""

    @cache
    def make(extras: str) -> Venv:
        home = tmp_path_factory.mktemp(f"venv-{extras.replace(',', '-') or 'base'}")
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
        (home / "here").mkdir()
        made = Venv(home / "venv" / "bin", home / "here")
        wanted = f"{wheel}[{extras}]" if extras else str(wheel)
        made.run("python", "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), wanted)
        return made

    return make
