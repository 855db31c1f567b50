"""The Python blocks of the pages run, each as a program of its own, against a stack of real processes.

Given the photos that ship in a folder `photos`, if I run a block, I expect it to end well.
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

from contract.keys.jobs import OUTPUTS
from tests.docs.pages import ROOT, WRITTEN, blocks, load_generator
from tests.mill import Mill, variables
from tests.serving import serving

EXAMPLES = {
    f"{path.relative_to(ROOT)}-{number}": block
    for path in WRITTEN
    for number, block in enumerate(blocks(path.read_text("utf-8"), "python"), 1)
}
PHOTOS = ("espresso", "koala", "goldfish")


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    """Controller, clock and one worker, which publishes the models that ship."""
    with Mill(tmp_path_factory.mktemp("mill"), workers=1).running() as made:
        yield made


@pytest.fixture(scope="module")
def ran(mill: Mill, tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> dict[str, str]:
    """What each example wrote to stderr where it failed, empty where it ended well."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "photos").mkdir()
    for name in PHOTOS:
        shutil.copy(photos[name], folder / "photos")
    environment = {
        **os.environ,
        **variables(mill.settings),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "producer" / "face")]),
    }
    found: dict[str, str] = {}
    with serving(mill.settings, mill.client.backend.store) as api:
        environment |= {"IMAGEMILL_API_URL": api.url, "IMAGEMILL_API_TOKEN": api.token("admin")}
        for name, block in EXAMPLES.items():
            done = subprocess.run(
                [sys.executable, "-c", block], cwd=folder, env=environment, capture_output=True, text=True
            )
            found[name] = "" if done.returncode == 0 else done.stderr or f"exit code {done.returncode}"
    return found


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(ran: dict[str, str], name: str) -> None:
    assert not ran[name]


@pytest.mark.timeout(300)
def test_the_reference_names_every_object_that_the_examples_left(ran: dict[str, str], mill: Mill) -> None:
    """Given jobs of several kinds, if I list the bucket, I expect no key that the reference does not name."""
    generator = load_generator()
    known = [*generator.bucket_keys(), *(f"jobs/<id>/out/{name}" for name in OUTPUTS)]
    patterns = [re.compile(pattern(key)) for key in known]
    there = [entry.key for entry in mill.client.backend.store.list("")]
    assert len(there) > 50
    unnamed = [key for key in there if not any(one.fullmatch(key) for one in patterns)]
    assert not unnamed


def pattern(key: str) -> str:
    """A documented key as a regular expression: any number for a number, any name for one in angle brackets."""
    return re.sub(r"\d+", r"\\d+", re.sub(r"<\w+>", "[^/]+", re.escape(key).replace(r"\-", "-")))
