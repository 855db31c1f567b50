"""The sessions of the README and of the tutorial run, command by command, against a stack of real processes.

Given the sample photos and a running stack, if I type what a session says, I expect every command to end well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, README, ROOT, blocks
from tests.mill import Mill, variables

pytestmark = [pytest.mark.drill, pytest.mark.timeout(400)]

PAGES = [README, *(DOCS / "tutorial" / f"{name}.md" for name in ("label", "train", "synthesize", "schedule"))]
NOT_HERE = re.compile(r"^(\. |imagemill (up|down|doctor)\b)")
"""The fixture has started the stack; its clock and models are those of every stack."""


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    with Mill(tmp_path_factory.mktemp("mill"), workers=1).running() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout, as far as the sessions look at it, with the command on its path."""
    shutil.copytree(ROOT / "deploy" / "photos", tmp_path / "deploy" / "photos")
    command = tmp_path / "bin" / "imagemill"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m producer "$@"\n')
    command.chmod(0o755)
    return tmp_path


def typed(page: Path) -> list[str]:
    """What somebody types who follows the page."""
    sessions = "".join(blocks(page.read_text("utf-8"), "console")).replace("\\\n>", "")
    return [line for line in re.findall(r"^\$ (.*)$", sessions, re.MULTILINE) if not NOT_HERE.match(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_session_runs(page: Path, mill: Mill, folder: Path) -> None:
    # Each page has its own ids of jobs, so that pages may use the same ones.
    settings = mill.settings.model_copy(update={"data": folder})
    environment = {**os.environ, **variables(settings), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"
    commands = typed(page)
    assert len(commands) >= 4
    for line in commands:
        done = subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
